"""Tools that the tree declares otherwise than by a function: markers, classes, lists."""

from __future__ import annotations

from .templates import File, Shape, Told

#: Modules beside the tree that its tools import, relative to the package above it.
SUPPORT = {
    "tool_metadata.py": '''"""What tools say about themselves."""
# @BOMB@
RUNTIME_TRIO = "trio"


def tool_metadata(runtime="auto", category="general", **more):
    """Return a decorator that notes what a tool says about itself."""

    def decorate(function):
        function._mcp_metadata = {"runtime": runtime, "category": category, **more}
        function._mcp_runtime = runtime
        return function

    return decorate
''',
    "tool_registry.py": '''"""The base of tools that are classes."""
# @BOMB@
from abc import ABC, abstractmethod


class ClaudeMCPTool(ABC):
    """A tool that is a class."""

    def __init__(self):
        self.name = ""
        self.description = ""
        self.input_schema = {}
        self.category = "general"

    @abstractmethod
    async def execute(self, parameters):
        """Run the tool."""
''',
}

MARKED = File(
    "nursery.py",
    '''"""Tools that are marked as written for trio."""
# @BOMB@
from @SERVER@.tool_metadata import RUNTIME_TRIO, tool_metadata


@tool_metadata(runtime=RUNTIME_TRIO, requires_p2p=False, category="nursery", priority=8)
async def nurse_plant(plant: str) -> dict:
    """Nurse a plant."""
    import trio

    await trio.sleep(0)
    return {"success": True, "plant": plant, "task": trio.lowlevel.current_task().name != ""}


async def nurse_tree(tree: str) -> dict:
    """Nurse a tree."""
    import trio

    with trio.move_on_after(10):
        await trio.sleep(0)
    return {"success": True, "tree": tree}


nurse_tree._mcp_runtime = "trio"


@tool_metadata(category="nursery")
async def nurse_child(child: str) -> dict:
    """Nurse a child."""
    import asyncio

    await asyncio.sleep(0)
    return {"success": True, "child": child, "loop": asyncio.get_running_loop().is_running()}
''',
    tools=(
        Told(
            "nurse_plant",
            {"plant": "fern"},
            {"success": True, "plant": "fern", "task": True},
            is_async=True,
            runtime="trio",
            required=("plant",),
            summary="Nurse a plant.",
        ),
        Told(
            "nurse_tree",
            {"tree": "oak"},
            {"success": True, "tree": "oak"},
            is_async=True,
            runtime="trio",
            required=("tree",),
            summary="Nurse a tree.",
        ),
        Told(
            "nurse_child",
            {"child": "Ann"},
            {"success": True, "child": "Ann", "loop": True},
            is_async=True,
            required=("child",),
            summary="Nurse a child.",
        ),
    ),
    imports=("/@SERVER_PATH@/tool_metadata.py",),
)

CLASSES = File(
    "surveys.py",
    '''"""Tools that are classes."""
# @BOMB@
from typing import Any, Dict

from @SERVER@.tool_registry import ClaudeMCPTool


class MeasureFieldTool(ClaudeMCPTool):
    """Measures a field."""

    def __init__(self):
        super().__init__()
        self.name = "measure_field"
        self.description = "Measure a field."
        self.input_schema = {
            "type": "object",
            "properties": {
                "width": {"type": "number", "description": "Metres."},
                "length": {"type": "number", "default": 1},
            },
            "required": ["width"],
        }
        self.fields = 0

    async def execute(self, parameters: Dict[str, Any]) -> Dict[str, Any]:
        """Run it."""
        self.fields += 1
        area = parameters["width"] * parameters.get("length", 1)
        return {"success": True, "area": area}


class DrainFieldTool:
    """Drains a field."""

    name = "drain_field"
    description = "Drain a field."
    input_schema = {
        "type": "object",
        "properties": {"depth": {"type": "integer", "minimum": 1}},
        "required": ["depth"],
    }

    def execute(self, depth: int) -> Dict[str, Any]:
        """Run it."""
        if depth > 3:
            return {"status": "error", "error": f"{depth} m is too deep"}
        return {"status": "success", "depth": depth}
''',
    tools=(
        Told(
            "MeasureFieldTool.execute",
            {"width": 4, "length": 2.5},
            {"success": True, "area": 10.0},
            calls_itself="measure_field",
            kind="class",
            is_async=True,
            required=("width",),
            optional=("length",),
            described={"width": "Metres."},
            summary="Measure a field.",
        ),
        Told(
            "DrainFieldTool.execute",
            {"depth": 4},
            {"status": "error", "error": "4 m is too deep"},
            calls_itself="drain_field",
            kind="class",
            fails=True,
            says="4 m is too deep",
            required=("depth",),
            summary="Drain a field.",
        ),
    ),
    imports=("/@SERVER_PATH@/tool_registry.py",),
)

LISTED = File(
    "flow_tools.py",
    '''"""Tools in a list that says more of them than their code does."""
# @BOMB@
async def flow_submit(flow_id, steps, priority=1.0):
    """Submit a flow."""
    return {"success": True, "flow_id": flow_id, "steps": len(steps), "priority": priority}


async def flow_watch(flow_id, **options):
    import trio

    await trio.lowlevel.checkpoint()
    return {"success": True, "flow_id": flow_id, "format": options.get("format", "json")}


TOOLS = [
    {
        "name": "flow_submit",
        "description": "Submit a flow for later",
        "function": flow_submit,
        "input_schema": {
            "type": "object",
            "properties": {
                "flow_id": {"type": "string", "description": "Which flow."},
                "steps": {"type": "array", "items": {"type": "object"}},
                "priority": {"type": "number", "default": 1.0, "minimum": 0},
            },
            "required": ["flow_id", "steps"],
        },
    },
    {
        "name": "flow_watch",
        "description": "Watch a flow",
        "function": flow_watch,
        "input_schema": {
            "type": "object",
            "properties": {
                "flow_id": {"type": "string"},
                "format": {"type": "string", "enum": ["json", "dot"], "default": "json"},
            },
            "required": ["flow_id"],
        },
        "_mcp_runtime": "trio",
    },
]
''',
    tools=(
        Told(
            "flow_submit",
            {"flow_id": "f", "steps": [{}, {}]},
            {"success": True, "flow_id": "f", "steps": 2, "priority": 1.0},
            kind="listed",
            is_async=True,
            required=("flow_id", "steps"),
            optional=("priority",),
            described={"flow_id": "Which flow."},
            summary="Submit a flow for later",
        ),
        Told(
            "flow_watch",
            {"flow_id": "f", "format": "dot"},
            {"success": True, "flow_id": "f", "format": "dot"},
            kind="listed",
            is_async=True,
            runtime="trio",
            required=("flow_id",),
            optional=("format",),
            summary="Watch a flow",
        ),
    ),
)

SHAPES = (
    Shape("runtime markers", (MARKED,)),
    Shape("classes", (CLASSES,)),
    Shape("TOOLS lists", (LISTED,)),
)
