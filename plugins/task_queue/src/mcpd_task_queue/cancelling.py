"""Why a task that is to be cancelled still runs. No I/O."""

from __future__ import annotations


def why_it_still_runs(placement: str | None, seconds: float, grace: float) -> str:
    """Say what keeps a tool running that has been asked to stop, and what will end it.

    :param placement: where the tool runs; ``None`` when nobody offers it any more.
    :param seconds: since it was asked.
    :param grace: seconds that it has to clean up.
    """
    left = max(0.0, grace - seconds)
    if placement == "process":
        if left:
            return f"its process may clean up for another {left:.0f} s, and is killed then"
        return "its process is being killed"
    if placement == "thread":
        if left:
            return (
                f"it has another {left:.0f} s to stop by itself; nothing can stop a thread, so it "
                "may run on after that, with no effect on the task"
            )
        return "it is being given up; nothing can stop a thread, so it may run on"
    if placement == "loop":
        return (
            "it was cancelled and ends when it has cleaned up; nothing can stop an `async def` "
            "that does not, except a restart of the server"
        )
    return "it ends when its tool has cleaned up"


def left_behind(placement: str | None, seconds: float, grace: float) -> str:
    """Say what is left of a call that has ended, as the end of a sentence; usually nothing.

    :param seconds: from the request to stop until the call ended.
    """
    if placement == "thread" and seconds >= grace:
        return f"; its thread did not stop within {grace:g} s and may still be running"
    return ""
