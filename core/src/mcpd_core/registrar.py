"""`ToolRegistrar`: what a plugin's ``mcpd_register_tools`` hook is given."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .content.contract import read_prompts, read_resources, render_prompt, render_resource
from .content.marks import prompt_mark_of, resource_mark_of
from .contract import Problem
from .errors import ManifestError, PluginLoadError
from .manifest import checked
from .marks import mark_of
from .spec import PromptSpec, ResourceSpec, RuntimeName, ToolSpec


class ToolRegistrar:
    """Collects the tools, resources and prompts of one plugin and derives their contracts.

    This is the `Registrar` of the public interface. Importing what describes a function costs an
    import of pydantic, which happens when the first function is added.

    :param plugin: the name of the plugin.
    :param runtime: what its entry-point group declares.
    """

    def __init__(self, plugin: str, runtime: RuntimeName) -> None:
        self._plugin = plugin
        self._runtime = runtime
        self._specs: dict[str, ToolSpec] = {}
        self._claims: dict[str, str] = {}
        self._resources: tuple[ResourceSpec, ...] = ()
        self._prompts: tuple[PromptSpec, ...] = ()

    @property
    def plugin(self) -> str:
        """The name of the plugin whose tools these are."""
        return self._plugin

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The contracts of the tools added so far, sorted by name."""
        return tuple(self._specs[name] for name in sorted(self._specs))

    @property
    def resources(self) -> tuple[ResourceSpec, ...]:
        """The contracts of the resources added so far, sorted by URI."""
        return tuple(sorted(self._resources, key=lambda spec: spec.uri))

    @property
    def prompts(self) -> tuple[PromptSpec, ...]:
        """The contracts of the prompts added so far, sorted by name."""
        return tuple(sorted(self._prompts, key=lambda spec: spec.name))

    def add(self, function: Callable[..., Any]) -> None:
        """Add one function that carries the ``@tool``, ``@resource`` or ``@prompt`` mark.

        :raises PluginLoadError: when it carries no mark, cannot be described, cannot be found again
            by its name, does not fit the plugin's runtime, or claims a name or a URI that is
            taken.
        """
        if resource_mark_of(function) is not None:
            self._add_resource(function)
        elif prompt_mark_of(function) is not None:
            self._add_prompt(function)
        else:
            self._add_tool(function)

    def _add_resource(self, function: Callable[..., Any]) -> None:
        from .content.functions import ResourceFunction

        spec = ResourceFunction(function, plugin=self._plugin, runtime=self._runtime).spec
        self._check_entry(spec.entry, function)
        known = [known for known in self._resources if known.entry != spec.entry]
        items = [render_resource(each, runtime=self._runtime) for each in (*known, spec)]
        try:
            self._resources = read_resources(items, "resources", self._plugin, self._runtime)
        except Problem as problem:
            raise self._improper(spec.entry, "resource", problem) from None

    def _add_prompt(self, function: Callable[..., Any]) -> None:
        from .content.functions import PromptFunction

        spec = PromptFunction(function, plugin=self._plugin, runtime=self._runtime).spec
        self._check_entry(spec.entry, function)
        known = [known for known in self._prompts if known.entry != spec.entry]
        items = [render_prompt(each, runtime=self._runtime) for each in (*known, spec)]
        try:
            self._prompts = read_prompts(items, "prompts", self._plugin, self._runtime)
        except Problem as problem:
            raise self._improper(spec.entry, "prompt", problem) from None

    def _improper(self, entry: str, kind: str, problem: Problem) -> PluginLoadError:
        return PluginLoadError(self._plugin, f"{entry} cannot be a {kind}: {problem}.")

    def _check_entry(self, entry: str, function: Callable[..., Any]) -> None:
        if not _leads_to(entry, function):
            raise PluginLoadError(
                self._plugin,
                f"{entry} cannot be imported by its name: that leads to nothing, or to "
                "something else than the function that was added.",
                hint="Define it as a function at the top of a module.",
            )

    def _add_tool(self, function: Callable[..., Any]) -> None:
        from .schema import describe

        spec = describe(function, plugin=self._plugin, runtime=self._runtime)
        self._check_entry(spec.entry, function)
        if spec.runtime != self._runtime and "any" not in (spec.runtime, self._runtime):
            raise PluginLoadError(
                self._plugin,
                f"{spec.entry} is a tool for {spec.runtime}, but the plugin {self._plugin!r} is "
                f"in the entry-point group of {self._runtime}.",
                hint="Put the plugin into the group `any`, or the tool into another plugin.",
            )
        try:
            (spec,) = checked([spec], plugin=self._plugin, runtime=self._runtime)
        except ManifestError as exc:
            raise PluginLoadError(
                self._plugin, f"{spec.entry} cannot be a tool: {exc.message}", hint=exc.hint
            ) from None
        for name in (spec.name, *spec.aliases):
            taken = self._claims.setdefault(name, spec.entry)
            if taken != spec.entry:
                raise PluginLoadError(
                    self._plugin, f"{taken} and {spec.entry} are both called {name!r}."
                )
        self._specs[spec.name] = spec

    def add_module(self, module: str) -> None:
        """Add every function with one of the marks that the named module defines.

        :param module: its full name.
        :raises ImportError: when there is no such module; whatever else importing it raises.
        :raises PluginLoadError: when the module defines none, or as `add` does.
        """
        from .parameters import marked_functions

        functions = marked_functions(importlib.import_module(module), _is_marked)
        if not functions:
            raise PluginLoadError(
                self._plugin,
                f"{module} defines no tool, no resource and no prompt.",
                hint="Mark functions with @tool, @resource or @prompt.",
            )
        for function in functions:
            self.add(function)


def _is_marked(function: object) -> bool:
    return any(mark(function) is not None for mark in (mark_of, resource_mark_of, prompt_mark_of))


def _leads_to(entry: str, function: object) -> bool:
    """Whether a call, which imports the tool by its name, would come upon the same function."""
    module, _, path = entry.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return found is function
