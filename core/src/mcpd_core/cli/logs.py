"""How log records look: lines for people, or one JSON object per line for programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

from .output import clean

#: What every record carries; whatever else a record has was added by whoever logged it.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``12:30:05 warning mcpd_core.host: message``, in local time.

    What a record says is stripped of the characters that steer a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = clean(record.getMessage())
        line = f"{moment} {record.levelname.lower():<7} {record.name}: {message}"
        if record.exc_info:
            line += "\n" + clean(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per record: ``time`` (UTC), ``level``, ``logger``, ``message``.

    Values that were added with ``extra`` are added under their own names, a traceback under
    ``exception``.
    """

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send the log of the whole process to stderr.

    :param level: the least severe level to show: ``debug``, ``info``, ``warning`` or ``error``.
    :param log_format: ``text`` or ``json``.
    :param stream: where to write instead of stderr.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("mcpd_core").setLevel(level.upper())
    # Plugins log under names of their own; libraries only speak up when it matters.
    logging.getLogger("mcpd").setLevel(level.upper())
    if level == "debug":
        root.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
