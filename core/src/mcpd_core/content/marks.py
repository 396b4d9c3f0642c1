"""The ``@resource`` and ``@prompt`` marks. They only take notes; `functions` reads them when they
are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, overload

from ..blocks import Block
from ..spec import TOOL_NAME, RuntimeName
from .template import UriTemplate

F = TypeVar("F", bound=Callable[..., Any])

#: What suggests values: it is given what has been typed so far.
Completer: TypeAlias = Callable[..., Any]

RESOURCE_MARK = "__mcpd_resource__"
PROMPT_MARK = "__mcpd_prompt__"


class PromptMessage(TypedDict):
    """One message of a prompt.

    ``content`` is text, an `Image`, `Audio`, `EmbeddedResource` or `ResourceLink`, or any content
    block of the protocol as a mapping.
    """

    role: Literal["user", "assistant"]
    content: str | Block | Mapping[str, Any]


@dataclass(frozen=True)
class ResourceMark:
    """What ``@resource`` was told about a function."""

    uri: str
    name: str
    title: str
    mime_type: str
    runtime: RuntimeName | None
    timeout: float | None
    complete: Mapping[str, Completer]


@dataclass(frozen=True)
class PromptMark:
    """What ``@prompt`` was told about a function."""

    name: str
    title: str
    runtime: RuntimeName | None
    timeout: float | None
    complete: Mapping[str, Completer]


def resource(
    uri: str,
    *,
    name: str | None = None,
    title: str | None = None,
    mime_type: str = "",
    runtime: RuntimeName | None = None,
    timeout: float | None = None,
    complete: Mapping[str, Completer] | None = None,
) -> Callable[[F], F]:
    """Mark a typed function as what reads a resource; the function itself stays as it is.

    With placeholders, ``notes://{folder}/{name}``, it reads whatever matches the template, and the
    placeholders are its parameters: text from the URI, decoded, and converted and checked as their
    annotations say. A value never is what its author expects it to be: ``..%2F..%2Fpasswd`` matches
    ``{name}`` too. A parameter annotated `Context` is injected. The docstring becomes the
    description. An ``async def`` runs on the loop of its runtime, a ``def`` in a thread.

    The function returns ``str``, ``bytes``, or anything else that becomes JSON. It raises
    `ResourceNotFound` when nothing is there.

    Example::

        def known(prefix: str) -> list[str]:
            return [path.stem for path in NOTES.glob(f"{escape(prefix)}*.md")]

        @resource("notes://{name}", mime_type="text/markdown", complete={"name": known})
        def note(name: str) -> str:
            \"\"\"One of my notes.\"\"\"

    :param uri: the URI, or a URI template of RFC 6570, level 1.
    :param name: for programs; the function's name by default.
    :param title: for people; made from the name by default.
    :param mime_type: of what is read; by default ``text/plain``, ``application/octet-stream`` or
        ``application/json``, as the answer is.
    :param runtime: as for a tool.
    :param timeout: seconds after which reading is cancelled; the host's default when ``None``.
    :param complete: placeholder -> a function (``def`` or ``async def``) that suggests values. It
        is given what has been typed so far, a `Context` where a parameter is annotated so, and the
        values of other placeholders, as far as they are known, in parameters of their names, which
        need a default. It returns a list of text, the best first.
    :raises ValueError: when the URI or the timeout is none.
    """
    UriTemplate(uri)

    def mark(f: F) -> F:
        own_name = name if name is not None else f.__name__
        _check_timeout(f"resource {uri!r}", timeout)
        noted = ResourceMark(
            uri=uri,
            name=own_name,
            title=title if title is not None else _title(own_name),
            mime_type=mime_type,
            runtime=runtime,
            timeout=timeout,
            complete=dict(complete or {}),
        )
        setattr(f, RESOURCE_MARK, noted)
        return f

    return mark


@overload
def prompt(function: F, /) -> F: ...


@overload
def prompt(
    *,
    name: str | None = None,
    title: str | None = None,
    runtime: RuntimeName | None = None,
    timeout: float | None = None,
    complete: Mapping[str, Completer] | None = None,
) -> Callable[[F], F]: ...


def prompt(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    title: str | None = None,
    runtime: RuntimeName | None = None,
    timeout: float | None = None,
    complete: Mapping[str, Completer] | None = None,
) -> Any:
    """Mark a typed function as what writes a prompt; the function itself stays as it is.

    Its parameters are the prompt's arguments. The protocol carries them as text, which is converted
    and checked as their annotations say; a parameter with a default is optional, and
    ``Annotated[T, Field(description=...)]`` documents it. A parameter annotated `Context` is
    injected. The docstring becomes the description.

    The function returns text, which is one message of the user, or a list of messages: pairs
    ``(role, content)`` or `PromptMessage`. Roles are ``user`` and ``assistant``.

    :param name: as clients ask for it; the function's name by default. 1 to 64 letters, digits,
        ``_`` and ``-``.
    :param title: for people; made from the name by default.
    :param runtime: as for a tool.
    :param timeout: seconds after which writing it is cancelled; the host's default when ``None``.
    :param complete: as for a resource, argument -> function.
    :raises ValueError: when the name or the timeout is none.
    """

    def mark(f: F) -> F:
        own_name = name if name is not None else f.__name__
        if not TOOL_NAME.match(own_name):
            raise ValueError(
                f"{own_name!r} is not a prompt name: use 1 to 64 letters, digits, '_' and '-'"
            )
        _check_timeout(f"prompt {own_name!r}", timeout)
        noted = PromptMark(
            name=own_name,
            title=title if title is not None else _title(own_name),
            runtime=runtime,
            timeout=timeout,
            complete=dict(complete or {}),
        )
        setattr(f, PROMPT_MARK, noted)
        return f

    return mark if function is None else mark(function)


def resource_mark_of(function: object) -> ResourceMark | None:
    """Return what ``@resource`` noted on a function, or ``None`` when it carries no mark."""
    found = getattr(function, RESOURCE_MARK, None)
    return found if isinstance(found, ResourceMark) else None


def prompt_mark_of(function: object) -> PromptMark | None:
    """Return what ``@prompt`` noted on a function, or ``None`` when it carries no mark."""
    found = getattr(function, PROMPT_MARK, None)
    return found if isinstance(found, PromptMark) else None


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _check_timeout(what: str, timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"{what}: timeout is {timeout!r}, not a positive number")
