"""The queues that `queues.py` compares, each run in processes of its own.

    python -m harness.queues.huey_sqlite submit /tmp/folder 1000 64 full

What the modules of others need is not installed beside mcpd; they import nothing of mcpd's. Each
prints one JSON object of figures.
"""
