"""Durable tasks: tool calls that are written down before they are acknowledged, and then run.

The parts, from the bottom up:

* `records` and `store`: what a task is, and the protocol that every engine speaks;
* `sqlite`: the embedded engine (one file, one writer, group commit);
* `policy`: what happens to a task after a failure or an interruption;
* `service` and `dispatcher`: the workers, which run in ``mcpd serve``;
* `cron`: when recurring tasks are due;
* `tools`: what clients see.
"""

__version__ = "0.1.0"
