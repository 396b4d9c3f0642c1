"""The loader that the contracts of tools name: from a file of a tree to code that can be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mcpd_core import CallResult, LoadedTool, PluginLoadError, ToolSpec

from .environment import turn_installers_off
from .naming import home_of
from .needs import hint_for, refusal, refuse_without
from .packages import PLUGIN, import_from
from .surroundings import put_back


def load(spec: ToolSpec) -> LoadedTool:
    """Import the module of a tool in its own package, with the installers of the tree turned off.

    :raises PluginLoadError: when it cannot be run, and why.
    :raises BaseException: whatever its code raises while it is imported.
    """
    turn_installers_off()
    return load_with_installers(spec)


def load_with_installers(spec: ToolSpec) -> LoadedTool:
    """Do the same, and leave the installers of the tree to what they are.

    :raises PluginLoadError: when it cannot be run, and why.
    :raises BaseException: whatever its code raises while it is imported.
    """
    source = Path(spec.source)
    if not source.is_file():
        raise PluginLoadError(
            PLUGIN,
            f"Its file {source} is not there any more.",
            hint="Put it back, or list the tools again.",
        )
    entry, _, reference = spec.entry.partition(":")
    home = home_of(entry, source)
    refuse_without(home, source)
    try:
        with put_back():
            found = _resolved(import_from(home, source), reference, source)
    except Exception as error:
        if (refused := refusal(home, error)) is not None:
            raise refused from error
        raise
    return _loaded(spec, found, partial(hint_for, home=home), is_method="." in reference)


def _resolved(module: ModuleType, reference: str, source: Path) -> Any:
    """Return what an entry leads to; a class on the way to its method is instantiated.

    The instance is kept for all calls, as the old server did.
    """
    found: Any = module
    for name in reference.split("."):
        if isinstance(found, type):
            found = _instance(found, source)
        try:
            found = getattr(found, name)
        except AttributeError:
            raise PluginLoadError(
                PLUGIN,
                f"{source} has no {reference!r} once it is imported.",
                hint="Perhaps the file was changed after it had been listed: restart the server.",
            ) from None
    return found


def _instance(of: type, source: Path) -> Any:
    try:
        return of()
    except TypeError as error:
        raise PluginLoadError(
            PLUGIN,
            f"The class {of.__name__} of {source} cannot be instantiated without arguments: "
            f"{error}.",
            hint="Give the parameters of its __init__ defaults.",
        ) from error


def _loaded(
    spec: ToolSpec, found: Any, hint_for: Callable[[str], str], *, is_method: bool
) -> LoadedTool:
    # Imported late: what the tool's module imports may be heavy enough.
    from .annotations import converters
    from .arguments import Arguments
    from .envelopes import answer
    from .failures import told
    from .functions import Code, run_async, run_sync

    names = spec.input_schema.get("properties", {})
    code = Code(spec.name, found, names, is_method=is_method)
    arguments = Arguments(
        spec.name,
        spec.input_schema,
        open_ended=code.open_ended,
        converters=converters(code.function),
    )

    def check(given: Mapping[str, Any]) -> dict[str, Any]:
        fitting = arguments.check(given)
        code.check(fitting)
        return fitting

    # The answer is made where the code runs: of a large one the host's loop would notice.
    wait, call = run_async(code), run_sync(code, spec.runtime)

    async def run_in_loop(**arguments: Any) -> CallResult:
        with told(spec.name, hint_for):
            return answer(await wait(**arguments), of=spec.name, hint_for=hint_for)

    def run_in_thread(**arguments: Any) -> CallResult:
        with told(spec.name, hint_for):
            return answer(call(**arguments), of=spec.name, hint_for=hint_for)

    # What a decorator hides, the scan has seen.
    in_loop = code.is_async or spec.placement == "loop"
    return LoadedTool(run_in_loop if in_loop else run_in_thread, check)
