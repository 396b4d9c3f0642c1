"""Work that takes long, on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(name: str, function: Callable[[], T]) -> Future[T]:
    """Run a function on a thread of its own, which ends with the process if need be."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            answer = function()
        except Exception as error:  # noqa: BLE001 - the boundary: it belongs to the caller
            future.set_exception(error)
        else:
            future.set_result(answer)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
