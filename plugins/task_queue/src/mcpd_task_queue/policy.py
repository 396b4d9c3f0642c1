"""What becomes of a task after a failure, a refusal or an interruption. Decisions only, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mcpd_core import (
    Busy,
    CallRefused,
    HostClosed,
    ServiceUnavailable,
    ToolUnavailable,
    UnknownTool,
)

from .records import Delivery, TaskState
from .retrying import RetryPolicy
from .store import Verdict

#: Code of a `CallResult.error` that says: the call was cut off at its deadline.
DEADLINE = "deadline_exceeded"


class Interrupted(NamedTuple):
    """What becomes of a task whose attempt was cut off."""

    state: TaskState
    reason: str


def after_interruption(
    *,
    cause: str,
    tool: str,
    delivery: Delivery,
    repeatable: bool,
    cancelling: bool,
    attempts: int,
    max_attempts: int,
) -> Interrupted:
    """Decide about an attempt that began and never reported: it may have done its work, or not.

    :param cause: what cut it off, as the first half of a sentence.
    :param attempts: those that count, the interrupted one included.
    """
    if cancelling:
        return Interrupted("cancelled", f"{cause} while it was being cancelled")
    if delivery == "at_most_once":
        return Interrupted(
            "uncertain", f"{cause}; delivery is at_most_once, so it is not started again"
        )
    if not repeatable:
        return Interrupted(
            "uncertain",
            f"{cause}; {tool} is neither idempotent nor read-only, so whether it has taken effect "
            "is for a person to find out",
        )
    if attempts >= max_attempts:
        return Interrupted("dead", f"{cause}; all {max_attempts} attempts are used up")
    return Interrupted("ready", f"{cause}; it is safe to repeat")


def verdict_on(
    error: Mapping[str, Any],
    *,
    attempts: int,
    max_attempts: int,
    policy: RetryPolicy | None = None,
) -> tuple[Verdict, float | None]:
    """Decide about an attempt that failed and said so.

    :param error: of the `CallResult`; its data may say ``retryable`` and ``retry_after``.
    :param policy: of the task, if it has one of its own.
    :returns: the verdict, and the seconds to wait that the error itself asks for.
    """
    if policy is not None and policy.rules_out(error):
        return "failed", None
    if not said_in(error, "retryable", default=True):
        return "failed", None
    if attempts >= max_attempts:
        return "dead", None
    after = said_in(error, "retry_after", default=None)
    if isinstance(after, (int, float)) and not isinstance(after, bool) and 0 <= after < 1e6:
        return "retry", float(after)
    return "retry", None


def said_in(error: Mapping[str, Any], key: str, *, default: Any) -> Any:
    """Look a detail of an error up, in the error itself or in its ``data``."""
    if key in error:
        return error[key]
    data = error.get("data")
    return data.get(key, default) if isinstance(data, Mapping) else default


class Refused(NamedTuple):
    """What becomes of a task whose call was refused, that is, whose tool did not start.

    :ivar action: ``release`` to wait and try again, at no cost; ``fail`` when waiting cannot help.
    :ivar reason: for whoever asks why the task waits, or why it failed.
    :ivar retry_in: seconds, when the refusal itself says; else ``None``.
    """

    action: Literal["release", "fail"]
    reason: str
    retry_in: float | None = None


def after_refusal(refused: CallRefused, tool: str) -> Refused:
    """Decide about a call that did not start: what the owner of the host can mend is waited for."""
    if isinstance(refused, Busy):
        return Refused("release", f"busy: {refused.message}", max(0.0, refused.retry_after))
    if isinstance(refused, HostClosed):
        return Refused("release", "the server is shutting down", 0.0)
    if isinstance(refused, UnknownTool):
        # The host knows more about the tool of a plugin that is installed and disabled.
        said = refused.message.rstrip(".") if refused.data.get("plugin") else ""
        return Refused("release", said or f"tool {tool} is not offered at present")
    if isinstance(refused, (ToolUnavailable, ServiceUnavailable)):
        return Refused("release", refused.message)
    # Invalid arguments, a principal that lost its permission, and whatever refusals come later.
    return Refused("fail", refused.message)
