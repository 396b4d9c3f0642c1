"""An example of a plugin for mcpd."""
