"""The embedded engine: one SQLite file, one thread that writes, group commit, fsync before an
answer. See `engine.SQLiteTaskStore`."""

from __future__ import annotations

from .engine import SQLiteTaskStore

__all__ = ["SQLiteTaskStore"]
