"""The version of mcpd-core, readable without looking up installed metadata."""

__version__ = "0.1.0"
