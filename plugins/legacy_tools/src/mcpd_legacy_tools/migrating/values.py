"""Old values as mcpd takes them."""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Callable
from typing import Any

#: Turns an old value into the new one.
Convert = Callable[[Any], Any]


class Unfit(Exception):
    """Raised when a value is not taken over; the message, a clause, says why."""


def shown(value: object) -> str:
    """Return a value as a report shows it: short, on one line.

    What is nested is not shown, because a secret could be anywhere in it.
    """
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return f"(a list of {len(value)})"
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(least: int, most: int | None = None) -> Convert:
    """Return the reader of whole numbers within bounds; text is taken as variables have it."""

    def convert(value: Any) -> int:
        number = _number(value)
        if number != int(number) or number < least or (most is not None and number > most):
            upto = "" if most is None else f" to {most}"
            raise Unfit(f"{shown(value)} is no whole number from {least}{upto}")
        return int(number)

    return convert


def seconds(value: Any) -> float:
    """Read a positive number of seconds."""
    number = _number(value)
    if number < 0.001:
        raise Unfit(f"{shown(value)} is no positive number of seconds")
    return number


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Unfit(f"{shown(value)} is no number")
    return number


def level(value: Any) -> str:
    """Read the name or the number of a log level of Python."""
    names = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "error"}
    by_name = {name: name for name in names.values()} | {"warn": "warning", "critical": "error"}
    found = by_name.get(str(value).strip().lower()) or (
        names.get(value) if isinstance(value, int) else None
    )
    if found is None:
        raise Unfit(f"{shown(value)} is no log level")
    return found


def address(value: Any) -> str:
    """Read an address to listen on, as long as nobody else can reach it."""
    host = str(value).strip()
    if host.lower() == "localhost" or _is_loopback(host):
        return host
    raise Unfit(
        f"others can reach {shown(host)}, and mcpd's HTTP endpoint does not know its callers. "
        "Read docs/how-to/serve-over-http.md before you set http.host and http.insecure_bind"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def transports(value: Any) -> list[str]:
    """Read the transport: stdio opened no port, so none is opened now."""
    kinds = {
        "stdio": ["socket"],
        "http": ["socket", "http"],
        "sse": ["socket", "http"],
        "streamable-http": ["socket", "http"],
    }
    found = kinds.get(str(value).strip().lower())
    if found is None:
        raise Unfit(f"{shown(value)} is no transport of the old server")
    return found


def origins(value: Any) -> list[str]:
    """Read the origins of web pages, without the one that means all of them."""
    return _names(value, leave=(), refuse="every web page could call the tools")


def hosts(value: Any) -> list[str]:
    """Read the names of this machine; mcpd knows those that only this machine uses."""
    return _names(
        value,
        leave=("localhost", "127.0.0.1", "0.0.0.0", "::1"),
        refuse="any page whose name points here could call the tools",
    )


def _names(value: Any, leave: tuple[str, ...], refuse: str) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise Unfit(f"{shown(value)} is no list of names")
    names = [part.strip() for part in parts if part.strip()]
    if "*" in names:
        raise Unfit(f"with '*', {refuse}")
    found = [name for name in names if name not in leave]
    if not found:
        raise Unfit("there is nothing in it that mcpd does not allow anyway")
    return found


def switched_off(plugin: str) -> Convert:
    """Return the reader of a switch that, when it is off, denies a plugin."""

    def convert(value: Any) -> list[str]:
        if truth(value):
            raise Unfit(f"nothing has to be set: pip install mcpd-{plugin.replace('_', '-')}")
        return [plugin]

    return convert


def truth(value: Any) -> bool:
    """Read a switch, as YAML or as a variable has it."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise Unfit(f"{shown(value)} is neither true nor false")
