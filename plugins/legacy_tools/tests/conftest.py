"""What the tests of the plugin share."""

from __future__ import annotations

from .running_kit import process as process
