"""Where tasks are kept."""

from __future__ import annotations

from pathlib import Path

#: The file, and the folder of large results beside it. A backup has the same names, so that its
#: folder can stand where the store's stands.
DATABASE, BLOBS = "tasks.db", "blobs"


def database_in(data_dir: Path) -> Path:
    """Return the path of the file in the data directory of a server."""
    return data_dir / "task_queue" / DATABASE
