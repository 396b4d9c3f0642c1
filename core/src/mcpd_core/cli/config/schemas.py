"""The settings file as JSON Schema: the sections of the core, and those that plugins declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import McpdError
from ...hooks import Hooks
from ...importer import Importer
from .sections import sections

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ...inventory import Inventory

#: A plugin, its section of the settings file and the model of that section.
PluginModel: TypeAlias = "tuple[str, str, type[BaseModel]]"

_HOOK = "mcpd_settings"


def plugin_models(inventory: Inventory, timeout: float) -> tuple[list[PluginModel], list[str]]:
    """Ask the enabled plugins for their settings. Those that declare some are imported.

    :param timeout: seconds that importing one plugin may take.
    :returns: what they declare, and why others could not be asked.
    """
    importer = Importer(timeout, faults=inventory.faults)
    hooks = Hooks()
    failures: list[str] = []
    for row in inventory.enabled:
        if _HOOK not in row.hooks and not row.dynamic:
            continue
        try:
            plugin = importer.load(row.entry, plugin=row.name).result()
            hooks.register(plugin, row.name, requires_core=row.requires_core)
        except McpdError as error:
            failures.append(f"{row.name}: {error}")
    models = hooks.settings()
    return models, failures + list(hooks.broken.values())


def settings_schema(models: Sequence[PluginModel]) -> dict[str, Any]:
    """Return the JSON Schema of a settings file.

    :param models: the settings of plugins, as `plugin_models` returns them.
    """
    properties: dict[str, Any] = {}
    for section in sections():
        properties[section.name] = {
            "type": "object",
            "description": section.text,
            "additionalProperties": False,
            "properties": {
                setting.key: {
                    **setting.schema,
                    "description": setting.text,
                    **({} if setting.default is None else {"default": _json(setting.default)}),
                }
                for setting in section.settings
            },
        }
    definitions: dict[str, Any] = {}
    if models:
        from pydantic.json_schema import models_json_schema

        # Together, so that models of the same name are told apart.
        schemas, joint = models_json_schema(
            [(model, "validation") for _, _, model in models],
            ref_template="#/$defs/{model}",
        )
        definitions = joint.get("$defs", {})
        for _, section_name, model in models:
            properties[section_name] = schemas[model, "validation"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mcpd.toml",
        "type": "object",
        "properties": properties,
        # Other sections belong to plugins that are not enabled here.
        "additionalProperties": {"type": "object"},
        **({"$defs": definitions} if definitions else {}),
    }


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
