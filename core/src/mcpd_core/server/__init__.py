"""MCP for clients: the official SDK's low-level server over streams of our own.

This package is the only place that imports the SDK, which costs about half a second; importing the
package itself costs nothing. `daemon` has the two entry points (`run_daemon`, `run_standalone`).
"""
