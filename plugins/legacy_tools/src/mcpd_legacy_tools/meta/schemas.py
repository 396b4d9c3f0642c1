"""A tool as the old server described it, with its JSON Schema beside that."""

from __future__ import annotations

from typing import Any

from mcpd_core import ToolSpec

from .names import PLUGIN, own_name
from .written import Written, read

#: Characters of a description in a list.
_SHORT = 100


def brief(spec: ToolSpec, category: str) -> dict[str, Any]:
    """Describe a tool as one of a list."""
    first = spec.description.strip().split("\n")[0]
    return {"name": own_name(spec, category), "description": first[:_SHORT]}


def described(spec: ToolSpec, category: str) -> dict[str, Any]:
    """Describe a tool in the old form.

    Nothing is imported. Parameters and signature are read from the file of a legacy tool, and made
    from the JSON Schema of any other.
    """
    written = None
    if spec.plugin == PLUGIN and spec.source:
        written = read(spec.source, spec.entry.partition(":")[2])
    if written is None:
        written = _from_schema(spec)
    marks = written.marks
    return {
        "name": own_name(spec, category),
        "category": category,
        "description": spec.description,
        "signature": written.signature,
        "schema_version": str(marks.get("schema_version", "1.0")),
        "deprecated": bool(marks.get("deprecated", False)),
        "deprecation_message": str(marks.get("deprecation_message", "")),
        "parameters": written.parameters,
        "return_type": written.returns,
        "input_schema": spec.input_schema,
    }


def _from_schema(spec: ToolSpec) -> Written:
    required = set(spec.input_schema.get("required", ()))
    parameters: dict[str, dict[str, Any]] = {}
    parts = []
    for name, schema in spec.input_schema.get("properties", {}).items():
        schema = schema if isinstance(schema, dict) else {}
        parameter: dict[str, Any] = {"name": name, "required": name in required}
        kind = schema.get("type")
        if isinstance(kind, str):
            parameter["type"] = kind
        part = f"{name}: {parameter.get('type', 'Any')}"
        if name not in required:
            parameter["default"] = str(schema.get("default"))
            part += f" = {schema.get('default')!r}"
        parameters[name] = parameter
        parts.append(part)
    return Written(f"({', '.join(parts)})", parameters, "Any", {})
