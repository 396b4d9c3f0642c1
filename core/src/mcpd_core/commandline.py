"""What the commands of plugins use: the running daemon, and the ways of the core's own commands.

A plugin declares a command in its ``pyproject.toml`` (see `mcpd_core.commands`) and writes it with
click. The module is imported when the command is run; it does well to import nothing heavy::

    import click
    from mcpd_core.commandline import Daemon, data_dir_option, json_option, table, write_json

    @click.command()
    @data_dir_option
    @json_option
    def tasks(data_dir: str | None, as_json: bool) -> None:
        "List the tasks."
        with Daemon(data_dir) as daemon:
            page = daemon.call("list_tasks", {"limit": 20})
        if as_json:
            write_json(page)
        else:
            table(("task", "state"), [(t["task_id"], t["state"]) for t in page["tasks"]])

Data goes to stdout, everything else to stderr. An `McpdError` that leaves a command is printed as
``error: ...`` with its hint below. A command's return value is its exit status: `OK`, `FAILED` when
what was asked for failed, `NOT_CALLED` when it makes no sense and nothing was tried.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import click

from . import paths
from .blocks import in_words
from .cli import FAILED, INTERRUPTED, NOT_CALLED, OK, complain
from .cli.daemon_client import ConnectionLost, DaemonClient, RemoteError
from .cli.options import config_option, data_dir_option, json_option, settings_from
from .cli.output import clean, note, table, write, write_json
from .cli.terminal import can_be_redrawn, interruptible
from .errors import CallRefused, InvalidArguments, McpdError, NoDaemon, ToolError

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NOT_CALLED",
    "OK",
    "ConnectionLost",
    "Daemon",
    "can_be_redrawn",
    "clean",
    "complain",
    "config_option",
    "confirm",
    "data_dir_option",
    "interruptible",
    "json_option",
    "note",
    "settings_from",
    "table",
    "write",
    "write_json",
]

#: Where the daemon puts the details of a failure in a result's ``_meta``.
_ERROR_META = "mcpd/error"

#: Called with done, total and message of each progress report.
OnProgress = Callable[[float, "float | None", str], None]


class Daemon:
    """A session with the daemon that owns a data directory, as its owner.

    Use it as a context manager; entering connects. It is for one thread.

    :param data_dir: the value of ``--data-dir``, if it was given.
    :raises NoDaemon: on entering, when none is running there.
    """

    def __init__(self, data_dir: str | None = None) -> None:
        self.socket = paths.socket_path(paths.data_dir(data_dir))
        self._client = DaemonClient(self.socket)
        self._heard: deque[tuple[str, Mapping[str, Any]]] = deque()

    def __enter__(self) -> Daemon:
        try:
            self._client.__enter__()
        except NoDaemon as error:
            if "--local" not in error.hint:
                raise
            raise NoDaemon(
                f"No daemon listens on {self.socket}.",
                hint="Start one with `mcpd serve`, or name its directory with --data-dir.",
            ) from error.__cause__
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.__exit__(kind, error, traceback)

    def call(
        self, tool: str, arguments: Mapping[str, Any], *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Call a tool; Ctrl-C cancels the call.

        :returns: the structured result, or ``{"text": ...}`` of a tool that answers text.
        :raises ToolError: when the tool failed.
        :raises CallRefused: when it did not start.
        :raises ConnectionLost: when the daemon ended before it answered.
        """

        def notified(method: str, params: Mapping[str, Any]) -> None:
            if method != "notifications/progress":
                self._heard.append((method, params))
            elif on_progress is not None:
                on_progress(params["progress"], params.get("total"), params.get("message") or "")

        try:
            result = self._client.call(tool, arguments, notified=notified)
        except RemoteError as error:
            raise _refused(error) from None
        text = in_words(tuple(result.get("content", ())))
        if not result.get("isError"):
            structured = result.get("structuredContent")
            return structured if isinstance(structured, dict) else {"text": text}
        details = result.get("_meta", {}).get(_ERROR_META) or {"message": text}
        message, hint = str(details.get("message") or text), str(details.get("hint") or "")
        if details.get("code") == InvalidArguments.code:
            raise InvalidArguments(message, hint=hint)
        raise ToolError(message, hint=hint, data=details)

    def request(
        self, method: str, params: Mapping[str, Any] | None = None, *, limited: bool = True
    ) -> dict[str, Any]:
        """Send a JSON-RPC request, such as one of a plugin's own methods, and return its result.

        :param limited: whether the daemon is given up when it has not answered within 10 s; what
            takes as long as it takes passes ``False``.
        :raises CallRefused: when the answer is an error.
        :raises ConnectionLost: when there is no answer.
        """
        try:
            return self._client.request(method, params, notified=self._keep, limited=limited)
        except RemoteError as error:
            raise _refused(error) from None

    def read(self, uri: str) -> str:
        """Read a text resource.

        :raises CallRefused: when there is nothing at the URI, or it is no text.
        """
        (content,) = self.request("resources/read", {"uri": uri})["contents"]
        if "text" not in content:
            raise CallRefused(f"The resource {uri!r} is no text.")
        return str(content["text"])

    def subscribe(self, uri: str) -> None:
        """Have `notification` tell when what is at a URI has changed.

        :raises CallRefused: when there is no such resource.
        """
        self.request("resources/subscribe", {"uri": uri})

    def notification(self, timeout: float | None = None) -> tuple[str, Mapping[str, Any]] | None:
        """Wait for the next notification, such as ``notifications/resources/updated``.

        :param timeout: seconds; ``None`` waits for as long as the daemon lives.
        :returns: its method and parameters, or ``None`` when none came in time.
        :raises ConnectionLost: when the daemon has ended.
        """
        if self._heard:
            return self._heard.popleft()
        return self._client.notification(timeout)

    def _keep(self, method: str, params: Mapping[str, Any]) -> None:
        self._heard.append((method, params))


def confirm(question: str, *, yes: bool) -> bool:
    """Ask the person at the terminal, and say that nothing was done when they say no.

    :param yes: whether ``--yes`` was given, so that nobody is asked.
    :raises click.UsageError: when there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes.")
    if click.confirm(clean(question), err=True):
        return True
    note("Nothing was done.")
    return False


def _refused(error: RemoteError) -> McpdError:
    hint = str(error.data.get("hint") or "")
    return CallRefused(error.message, hint=hint, data=error.data)
