"""What a tool promises (`ToolSpec`) and what one call of it carries (`Call`).

Nothing here does anything: these are the frozen records that every other layer passes around.
Only the standard library is imported, so that listing tools stays cheap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

from .errors import CallCancelled, CallRefused

#: The library that a tool's ``async def`` code is written for. ``any`` is neutral code (anyio, or
#: neither library) that runs in its caller's runtime and is never bridged.
RuntimeName = Literal["asyncio", "trio", "any"]
#: Where a tool runs: on the loop of its runtime, in a worker thread, or in a worker process.
Placement = Literal["loop", "thread", "process"]

RUNTIMES: tuple[RuntimeName, ...] = ("asyncio", "trio", "any")
PLACEMENTS: tuple[Placement, ...] = ("loop", "thread", "process")

#: MiB of memory below which a tool's process could not even start.
LEAST_MEMORY_MB = 128

#: LLM APIs refuse dots and names of more than 64 characters.
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
#: No LLM is told of aliases, so that they can be what an older interface used.
ALIAS = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")


@dataclass(frozen=True)
class Annotations:
    """The four hints of the Model Context Protocol about what a tool does to the world.

    The defaults are the protocol's own: a tool that says nothing is taken to change things, perhaps
    destructively, to do more each time it is called, and to reach beyond this machine.

    :ivar read_only: the tool changes nothing.
    :ivar destructive: the tool may destroy or overwrite; meaningless when ``read_only``.
    :ivar idempotent: calling it again with the same arguments changes nothing more.
    :ivar open_world: the tool reaches things outside the host, such as the network.
    """

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True

    @property
    def safe_to_repeat(self) -> bool:
        """Whether an interrupted call may be made again without asking anybody."""
        return self.read_only or self.idempotent


class Offer(Protocol):
    """What every contract says, whether it is that of a tool, a resource or a prompt."""

    @property
    def name(self) -> str:
        """As its plugin calls it."""
        ...

    @property
    def label(self) -> str:
        """For messages, and unique among what the enabled plugins offer: ``tool 'add'``."""
        ...

    @property
    def entry(self) -> str:
        """Where the function is, as ``module:function``."""
        ...

    @property
    def plugin(self) -> str:
        """The name of the plugin that offers it."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds after which a call is cancelled; ``None`` means the host's default."""
        ...


@dataclass(frozen=True)
class ToolSpec:
    """The contract of one tool, as its plugin's manifest states it.

    :ivar name: unique among the enabled plugins; matches `TOOL_NAME`.
    :ivar description: what the tool does, for the model that chooses among tools.
    :ivar input_schema: JSON Schema (2020-12) of the arguments; its root type is ``object``.
    :ivar entry: where the function is, as ``module:function``.
    :ivar plugin: the name of the plugin that offers it.
    :ivar output_schema: JSON Schema of the structured result, or ``None`` when it has none.
    :ivar timeout: seconds after which a call is cancelled; ``None`` means the host's default.
    :ivar long_running: whether a call may be expected to take long enough to be worth queueing.
    :ivar aliases: further names it can be called by; they are not listed. They match `ALIAS`.
    :ivar listed: whether it is shown where tools are listed and searched. One that is not can
        still be called by whoever knows its name, for example from an older interface.
    :ivar memory_mb: MiB of memory that its process may use; ``None`` means the host's default. It
        says nothing about a tool that is not placed in a process.
    :ivar cpu_seconds: seconds of CPU time that one call may use, likewise.
    :ivar loader: the ``module:function`` that makes a `LoadedTool` from this contract, for code
        that carries no mark; empty for a function that does. Such code need not be written for the
        runtime of the plugin.
    :ivar source: where the code is, for people and for the loader, which may find it by this.
    :ivar process: tools with ``placement="process"`` and one name here share a worker process that
        keeps its state from call to call; empty for any worker of the plugin.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    entry: str
    plugin: str
    title: str = ""
    category: str = ""
    output_schema: Mapping[str, Any] | None = None
    annotations: Annotations = Annotations()
    runtime: RuntimeName = "asyncio"
    placement: Placement = "loop"
    timeout: float | None = None
    long_running: bool = False
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    listed: bool = True
    memory_mb: int | None = None
    cpu_seconds: int | None = None
    loader: str = ""
    source: str = ""
    process: str = ""

    @cached_property
    def label(self) -> str:
        """For messages."""
        return f"tool {self.name!r}"


@dataclass(frozen=True)
class CommandSpec:
    """The contract of one command that a plugin adds to the command line.

    :ivar name: what follows ``mcpd`` on the command line: one word, or a group of the core's and
        one.
    :ivar entry: ``module:attribute`` of a click command, imported when it is run.
    :ivar help: one line, for ``mcpd --help``.
    :ivar plugin: the name of the plugin that offers it.
    """

    name: str
    entry: str
    help: str = ""
    plugin: str = ""

    @property
    def group(self) -> str:
        """The group of the core's that it is in; empty for a command by itself."""
        return self.name.rpartition(" ")[0]

    @property
    def word(self) -> str:
        """Its name within its group."""
        return self.name.rpartition(" ")[2]


@dataclass(frozen=True)
class ResourceSpec:
    """The contract of a resource, or of all those that match a URI template.

    :ivar uri: the URI; a template of RFC 6570, level 1, when it has placeholders in braces.
    :ivar name: as its plugin calls it.
    :ivar entry: where the function that reads it is, as ``module:function``.
    :ivar plugin: the name of the plugin that offers it.
    :ivar mime_type: of what is read; empty when the function's answer decides.
    :ivar timeout: seconds after which reading is cancelled; ``None`` means the host's default.
    :ivar complete: the placeholders whose values can be completed.
    """

    uri: str
    name: str
    entry: str
    plugin: str
    title: str = ""
    description: str = ""
    mime_type: str = ""
    runtime: RuntimeName = "asyncio"
    timeout: float | None = None
    complete: tuple[str, ...] = ()

    @property
    def is_template(self) -> bool:
        """Whether it stands for all URIs that match."""
        return "{" in self.uri

    @property
    def label(self) -> str:
        """For messages."""
        return f"resource {self.uri!r}"


@dataclass(frozen=True)
class PromptArgument:
    """One argument of a prompt, which is always text."""

    name: str
    description: str = ""
    required: bool = False


@dataclass(frozen=True)
class PromptSpec:
    """The contract of a prompt.

    :ivar name: unique among the prompts of the enabled plugins; matches `TOOL_NAME`.
    :ivar entry: where the function that writes it is, as ``module:function``.
    :ivar plugin: the name of the plugin that offers it.
    :ivar timeout: seconds after which writing it is cancelled; ``None`` means the host's default.
    :ivar complete: the arguments whose values can be completed.
    """

    name: str
    entry: str
    plugin: str
    title: str = ""
    description: str = ""
    arguments: tuple[PromptArgument, ...] = ()
    runtime: RuntimeName = "asyncio"
    timeout: float | None = None
    complete: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For messages."""
        return f"prompt {self.name!r}"


@dataclass(frozen=True)
class Principal:
    """Who a call is made for. It is stored with deferred work and checked again when that runs.

    :ivar kind: how it was authenticated, for example ``local`` (same user on this machine).
    :ivar id: unique and stable within its kind, for example the numeric user id.
    :ivar name: for people; never used to decide anything.
    """

    kind: str
    id: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True)
class Progress:
    """One progress report of a running tool.

    :ivar done: how far it is, in the tool's own unit; it only ever grows.
    :ivar total: what ``done`` will be at the end, or ``None`` when that is not known.
    """

    done: float
    total: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Call:
    """One call, from the client that made it to the tool that runs it.

    :ivar id: unique within the process; appears in the log.
    :ivar spec: the tool that is called; or the resource that is read, or the prompt that is got.
    :ivar arguments: as they came, before validation.
    :ivar principal: on whose behalf.
    :ivar client: who queues: calls of one client wait behind each other, not behind other clients.
    :ivar deadline: `time.monotonic` time at which the call is cancelled, or ``None``.
    :ivar parent: the call from within which this one was made.
    :ivar on_progress: receives progress reports, on the host's thread.
    :ivar on_log: receives ``(level, message)`` of the tool's log lines, on the host's thread.
    :ivar trace: W3C trace context (``traceparent``, ``tracestate``, ``baggage``) of the request.
    :ivar admission: which class of permits the call competes for.
    :ivar on_start: called on the host's thread when the tool starts; until then the call can be
        made again without any risk.
    :ivar max_result_bytes: how large the answer may be; ``None`` means what the host allows.
    :ivar cancel_grace: returns the seconds that the tool has to clean up once the call is cancelled
        or its deadline has passed; ``None`` leaves it to the settings.
    """

    id: str
    spec: Offer
    arguments: Mapping[str, Any]
    principal: Principal
    client: str
    deadline: float | None = None
    parent: Call | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_log: Callable[[str, str], None] | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    admission: Literal["client", "worker"] = "client"
    on_start: Callable[[], None] | None = None
    max_result_bytes: int | None = None
    cancel_grace: Callable[[], float] | None = None


@dataclass(frozen=True)
class ToolCall:
    """One call to be made, as a part of several; see `Context.call_many`.

    :ivar tool: its name or an alias.
    :ivar timeout: seconds for everything, the wait for a permit included; ``None`` means the tool's
        own or the host's default.
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None


@dataclass(frozen=True)
class CallResult:
    """What a call answered, in the shape that clients receive.

    :ivar text: the answer as text; for a structured answer its JSON.
    :ivar structured: the answer as JSON data, or ``None`` when the tool returns plain text.
    :ivar error: the tool's failure, or ``None`` when it succeeded.
    :ivar content: the answer as content blocks of the protocol, where it is more than text; the
        text then tells what is in them. A tool that makes a result itself may give `Image` and its
        like here.
    """

    text: str
    structured: dict[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    content: tuple[Any, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether the tool failed."""
        return self.error is not None


@dataclass(frozen=True)
class LoadedTool:
    """Code that was not written for this host, as a loader makes it fit to be called.

    :ivar function: the code, called with the checked arguments by name. An ``async def`` runs in
        the runtime of its contract, anything else in a worker thread.
    :ivar check: given the arguments, returns them as the function takes them, at once, because it
        runs on the host's loop. It raises `InvalidArguments` when they do not fit. ``None`` passes
        them on as they came.
    :ivar answer: makes the answer from what the function returned, at once, too; ``None`` treats it
        like that of a tool without a return annotation. Whoever loads a tool with an output schema
        sees to it that the answers fit.
    :ivar context: the parameter that receives the `Context`; empty for none.
    """

    function: Callable[..., Any]
    check: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    answer: Callable[[Any], CallResult] | None = None
    context: str = ""


#: What becomes of one call of several: the tool's answer, its failure included; or that the tool
#: did not start, and why; or that it was cancelled while it ran, and has cleaned up.
Answer: TypeAlias = CallResult | CallRefused | CallCancelled
