"""Trees of tools written for the server before mcpd, found without importing and run unchanged.

A tree is a directory of categories, each a directory of Python files whose functions are tools.
"""

__version__ = "0.1.0"
