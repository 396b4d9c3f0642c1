"""The catalog tools: tools about tools. A plugin like any, which comes with mcpd-core."""
