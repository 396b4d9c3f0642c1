"""What the tools answer: the shapes from which their output schemas are made."""
