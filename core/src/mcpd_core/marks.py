"""The ``@tool`` mark. It only takes notes; `mcpd_core.schema` reads them when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from .errors import InvalidArguments
from .spec import (
    ALIAS,
    LEAST_MEMORY_MB,
    TOOL_NAME,
    Annotations,
    CallResult,
    Placement,
    RuntimeName,
)

F = TypeVar("F", bound=Callable[..., Any])
#: Answers arguments that do not fit, given what is wrong with them and the arguments.
OnMisfit = Callable[[InvalidArguments, Mapping[str, Any]], CallResult]

MARK = "__mcpd_tool__"


@dataclass(frozen=True)
class ToolMark:
    """What ``@tool`` was told about a function."""

    name: str
    title: str
    category: str
    placement: Placement | None
    runtime: RuntimeName | None
    timeout: float | None
    annotations: Annotations
    long_running: bool
    aliases: tuple[str, ...]
    tags: tuple[str, ...]
    listed: bool
    memory_mb: int | None
    cpu_seconds: int | None
    process: str
    on_misfit: OnMisfit | None


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *,
    name: str | None = None,
    title: str | None = None,
    category: str = "",
    placement: Placement | None = None,
    runtime: RuntimeName | None = None,
    timeout: float | None = None,
    read_only: bool = False,
    destructive: bool = True,
    idempotent: bool = False,
    open_world: bool = True,
    long_running: bool = False,
    aliases: Iterable[str] = (),
    tags: Iterable[str] = (),
    listed: bool = True,
    memory_mb: int | None = None,
    cpu_seconds: int | None = None,
    process: str = "",
    on_misfit: OnMisfit | None = None,
) -> Callable[[F], F]: ...


def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    title: str | None = None,
    category: str = "",
    placement: Placement | None = None,
    runtime: RuntimeName | None = None,
    timeout: float | None = None,
    read_only: bool = False,
    destructive: bool = True,
    idempotent: bool = False,
    open_world: bool = True,
    long_running: bool = False,
    aliases: Iterable[str] = (),
    tags: Iterable[str] = (),
    listed: bool = True,
    memory_mb: int | None = None,
    cpu_seconds: int | None = None,
    process: str = "",
    on_misfit: OnMisfit | None = None,
) -> Any:
    """Mark a typed function as a tool; the function itself stays as it is.

    Everything a client sees is taken from the function: its annotations become the input schema and
    check the arguments of every call, its docstring becomes the description,
    ``Annotated[T, Field(description=...)]`` documents a parameter, and its return annotation
    becomes the output schema. A parameter annotated `Context` is injected.

    :param name: as clients call it; the function's name by default. 1 to 64 letters, digits,
        ``_`` and ``-``.
    :param title: for people; made from the name by default.
    :param category: groups tools in listings.
    :param placement: where it runs. By default ``loop`` for ``async def`` and ``thread`` for
        ``def``. An ``async def`` in a ``thread`` runs in a loop of its library in a thread of its
        plugin; ``process`` is a process of its own.
    :param runtime: overrides, for this tool, the runtime that the plugin's entry-point group
        declares. ``any`` says that the code is neutral (anyio, or neither library).
    :param timeout: seconds after which a call is cancelled; the host's default when ``None``.
    :param read_only: the tool changes nothing.
    :param destructive: the tool may destroy or overwrite.
    :param idempotent: calling it again with the same arguments changes nothing more. An interrupted
        deferred call is made again by itself only when this or ``read_only`` is set.
    :param open_world: the tool reaches things outside the host.
    :param long_running: calls may take long enough to be worth deferring.
    :param aliases: further names it can be called by; they are not listed. They may have dots in
        them, and up to 128 characters.
    :param tags: words to find it by.
    :param listed: whether clients are told of it; one that is not can be called all the same.
    :param memory_mb: MiB of memory that the process of a tool with ``placement="process"`` may use,
        the interpreter's own included; the host's default when ``None``.
    :param cpu_seconds: seconds of CPU time that one call of such a tool may use, likewise.
    :param process: the name of a process that such a tool shares with others of its plugin, so that
        what their modules keep is there for the next call. Without it, any process will do.
    :param on_misfit: makes the answer to arguments that do not fit, for a tool whose callers expect
        failures in a shape of its own. By default the host answers them. Not for a tool that runs
        in a process, whose code the host never loads.
    :raises ValueError: when a name is not a tool name, the timeout is not positive, a limit is too
        small, or two options do not go together.
    """

    other_names = tuple(aliases)

    def mark(f: F) -> F:
        own_name = name if name is not None else f.__name__
        if not TOOL_NAME.match(own_name):
            raise ValueError(
                f"{own_name!r} is not a tool name: use 1 to 64 letters, digits, '_' and '-'"
            )
        for alias in other_names:
            if not ALIAS.match(alias):
                raise ValueError(
                    f"tool {own_name!r}: {alias!r} is not an alias: use 1 to 128 letters, digits, "
                    "'_', '-' and '.'"
                )
        if timeout is not None and not timeout > 0:
            raise ValueError(f"tool {own_name!r}: timeout is {timeout!r}, not a positive number")
        if memory_mb is not None and not memory_mb >= LEAST_MEMORY_MB:
            raise ValueError(
                f"tool {own_name!r}: memory_mb is {memory_mb!r}, less than {LEAST_MEMORY_MB}, "
                f"in which an interpreter does not start"
            )
        if cpu_seconds is not None and not cpu_seconds >= 1:
            raise ValueError(f"tool {own_name!r}: cpu_seconds is {cpu_seconds!r}, less than 1")
        if process and (placement != "process" or not ALIAS.match(process)):
            raise ValueError(
                f'tool {own_name!r}: process is {process!r}; it goes with placement="process", and '
                "is a name of letters, digits, '_', '-' and '.'"
            )
        if on_misfit is not None and placement == "process":
            raise ValueError(
                f"tool {own_name!r}: on_misfit is not for a tool that runs in a process"
            )
        setattr(
            f,
            MARK,
            ToolMark(
                name=own_name,
                title=title if title is not None else own_name.replace("_", " ").capitalize(),
                category=category,
                placement=placement,
                runtime=runtime,
                timeout=timeout,
                annotations=Annotations(read_only, destructive, idempotent, open_world),
                long_running=long_running,
                aliases=other_names,
                tags=tuple(tags),
                listed=listed,
                memory_mb=memory_mb,
                cpu_seconds=cpu_seconds,
                process=process,
                on_misfit=on_misfit,
            ),
        )
        return f

    return mark if function is None else mark(function)


def mark_of(function: object) -> ToolMark | None:
    """Return what ``@tool`` noted on a function, or ``None`` when it carries no mark."""
    found = getattr(function, MARK, None)
    return found if isinstance(found, ToolMark) else None
