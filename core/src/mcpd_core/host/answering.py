"""From whatever a call comes to, to an answer that a client can be given."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from ..errors import DeadlineExceeded, InvalidArguments, McpdError, ToolCrashed
from ..runtimes import Expired
from ..spec import Call, CallResult
from .binding import Bound
from .shaping import failure, shaped

_log = logging.getLogger(__name__)


async def answered(
    call: Call,
    run: Callable[[], Awaitable[Any]],
    answer: Callable[[Any], CallResult],
    library: str,
    *,
    limit: int,
) -> CallResult:
    """Run the code of a call and turn whatever happens, cancellation apart, into an answer.

    :param answer: shapes what ``run`` returns.
    :param library: in which the caller runs.
    :param limit: bytes of the largest answer.
    """
    label = call.spec.label
    try:
        value = await run()
        return shaped(answer(value), of=label, limit=limit)
    except Expired:
        return failure(
            DeadlineExceeded(
                f"The {label} was cancelled at its deadline.",
                hint="Ask for less, allow more time, or defer it as a task.",
            )
        )
    except McpdError as error:
        return failure(error)
    except BaseException as error:
        if _is_cancellation(error, library):
            raise
        _log.exception(
            "The %s of the plugin %s raised, in the call %s.",
            label,
            call.spec.plugin,
            call.id,
        )
        return failure(
            ToolCrashed(
                f"The {label} failed unexpectedly ({type(error).__name__}).",
                hint=f"The server's log has the details under {call.id}.",
            )
        )


def answered_misfit(
    call: Call, bound: object, misfit: InvalidArguments, *, limit: int
) -> CallResult:
    """Answer arguments that do not fit, where the author of a tool wants to do that.

    :param bound: what was to be called.
    :param limit: bytes of the largest answer.
    :raises InvalidArguments: the one given, where not.
    """
    if not isinstance(bound, Bound):
        raise misfit
    answer = bound.function.answer_to(misfit, call.arguments)
    return shaped(answer, of=call.spec.label, limit=limit)


def _is_cancellation(error: BaseException, library: str) -> bool:
    """Whether an exception is the cancellation of the caller, which runs in ``library``.

    trio delivers it inside a group when other tasks of a nursery raised meanwhile. In asyncio it
    is never in a group, and one that a tool has put there is the tool's own affair.
    """
    cancelled = anyio.get_cancelled_exc_class()
    # Exception groups are built in from Python 3.11 on, and backported before.
    subgroup = getattr(error, "subgroup", None)
    if library == "trio" and subgroup is not None:
        return subgroup(cancelled) is not None
    return isinstance(error, cancelled)
