"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from typing import cast

from .client import Era


def numbers(text: str) -> list[int]:
    """Read numbers that are separated by commas."""
    return [int(part) for part in text.split(",")]


def keys_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads keys that are separated by commas and refuses those that are not known."""

    def keys(text: str) -> list[str]:
        found = text.split(",")
        if unknown := sorted(set(found).difference(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
        return found

    return keys


def eras(text: str) -> list[Era]:
    """Read the names of eras of MCP."""
    found = text.split(",")
    if not set(found) <= {"handshake", "modern"}:
        raise argparse.ArgumentTypeError("the eras are handshake and modern")
    return cast("list[Era]", found)


def progress(text: str) -> None:
    """Show on a terminal what is going on, in place of what was shown before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
