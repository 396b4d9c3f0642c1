"""The host: the object that every call goes through, whoever makes it."""

from __future__ import annotations

from .host import Host

__all__ = ["Host"]
