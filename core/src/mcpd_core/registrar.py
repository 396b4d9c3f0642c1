"""`ToolRegistrar`: what a plugin's ``mcpd_register_tools`` hook is given."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .errors import PluginLoadError
from .spec import RuntimeName, ToolSpec


class ToolRegistrar:
    """Collects the tools of one plugin and derives their contracts.

    This is the `Registrar` of the public interface. Importing what describes a function costs an
    import of pydantic, which happens when the first tool is added.

    :param plugin: the name of the plugin.
    :param runtime: what its entry-point group declares.
    """

    def __init__(self, plugin: str, runtime: RuntimeName) -> None:
        self._plugin = plugin
        self._runtime = runtime
        self._specs: dict[str, ToolSpec] = {}
        self._claims: dict[str, str] = {}

    @property
    def plugin(self) -> str:
        """The name of the plugin whose tools these are."""
        return self._plugin

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The contracts of the tools added so far, sorted by name."""
        return tuple(self._specs[name] for name in sorted(self._specs))

    def add(self, function: Callable[..., Any]) -> None:
        """Add one function that carries the ``@tool`` mark.

        :raises PluginLoadError: when it carries no mark, cannot be described, cannot be found again
            by its name, does not fit the plugin's runtime, or claims a name that is taken.
        """
        from .schema import describe

        spec = describe(function, plugin=self._plugin, runtime=self._runtime)
        if "<locals>" in spec.entry or "<lambda>" in spec.entry:
            raise PluginLoadError(
                self._plugin,
                f"{spec.entry} cannot be imported by its name.",
                hint="Define the tool at the top of a module.",
            )
        if spec.runtime != self._runtime and "any" not in (spec.runtime, self._runtime):
            raise PluginLoadError(
                self._plugin,
                f"{spec.entry} is a tool for {spec.runtime}, but the plugin {self._plugin!r} is "
                f"in the entry-point group of {self._runtime}.",
                hint="Put the plugin into the group `any`, or the tool into another plugin.",
            )
        for name in (spec.name, *spec.aliases):
            taken = self._claims.setdefault(name, spec.entry)
            if taken != spec.entry:
                raise PluginLoadError(
                    self._plugin, f"{taken} and {spec.entry} are both called {name!r}."
                )
        self._specs[spec.name] = spec

    def add_module(self, module: str) -> None:
        """Add every function with the ``@tool`` mark that the named module defines.

        :param module: its full name.
        :raises ImportError: when there is no such module; whatever else importing it raises.
        :raises PluginLoadError: when the module defines no tool, or as `add` does.
        """
        from .schema import tools_of

        functions = tools_of(importlib.import_module(module))
        if not functions:
            raise PluginLoadError(
                self._plugin, f"{module} defines no tool.", hint="Mark functions with @tool."
            )
        for function in functions:
            self.add(function)
