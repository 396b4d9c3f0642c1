"""What plugins offer besides tools: resources, prompts, and completions of their arguments."""
