"""A typed function is the single source of its tool's contract."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Any, Optional

import pytest
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypedDict

from mcpd_core import (
    Annotations,
    Context,
    InvalidArguments,
    InvalidOutput,
    PluginLoadError,
    ToolUnavailable,
    tool,
)
from mcpd_core.schema import ToolFunction, describe, tools_of
from mcpd_core.spec import CallResult


class Point(TypedDict):
    """A place."""

    x: int
    y: int


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


def bound(function: Any) -> ToolFunction:
    return ToolFunction(function, plugin="test", runtime="trio")


@tool(
    title="Move it",
    category="space",
    idempotent=True,
    destructive=False,
    open_world=False,
    timeout=5,
    aliases=["shift"],
    tags=["motion"],
)
async def move(
    name: Annotated[str, Field(description="What to move.", max_length=8)],
    by: Point,
    ctx: Context,
    schema: Optional[int] = None,  # noqa: UP045 - the old spelling must work too
    *,
    copy: bool = False,
) -> Point:
    """Move a thing.

    It is carried, not thrown.
    """
    return {"x": by["x"], "y": by["y"]}


def test_the_contract_is_read_off_the_function() -> None:
    spec = describe(move, plugin="test", runtime="trio")
    assert spec.name == "move"
    assert spec.title == "Move it"
    assert spec.description == "Move a thing.\n\nIt is carried, not thrown."
    assert spec.annotations == Annotations(False, False, True, False)
    assert (spec.runtime, spec.placement, spec.timeout) == ("trio", "loop", 5)
    assert (spec.aliases, spec.tags, spec.category) == (("shift",), ("motion",), "space")
    assert spec.entry == f"{__name__}:move"


def test_parameters_become_properties_with_their_descriptions_bounds_and_defaults() -> None:
    schema = bound(move).spec.input_schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name", "by"]
    assert schema["properties"]["name"] == {
        "type": "string",
        "description": "What to move.",
        "maxLength": 8,
    }
    assert schema["properties"]["copy"] == {"type": "boolean", "default": False}
    assert schema["properties"]["schema"]["default"] is None
    assert list(schema["properties"]) == ["name", "by", "schema", "copy"]


def test_the_context_is_injected_and_not_part_of_the_schema() -> None:
    assert bound(move).context_parameter == "ctx"
    assert "ctx" not in bound(move).spec.input_schema["properties"]


def test_a_parameter_may_have_the_name_of_anything() -> None:
    assert bound(move).validate({"name": "a", "by": {"x": 1, "y": 2}, "schema": 1, "copy": True})


def test_arguments_are_converted_to_the_types_of_the_function() -> None:
    arguments = bound(move).validate({"name": "a", "by": {"x": "1", "y": 2}})
    assert arguments == {"name": "a", "by": {"x": 1, "y": 2}}


def test_a_refusal_names_every_argument_and_the_closest_name() -> None:
    with pytest.raises(InvalidArguments) as refused:
        bound(move).validate({"name": "far too long", "bye": {}, "frobnicate": 1})
    problems = {p["argument"]: p["problem"] for p in refused.value.data["problems"]}
    assert problems["bye"] == "unknown argument; did you mean 'by'"
    assert problems["by"] == "required, but missing"
    assert problems["frobnicate"].startswith("unknown argument; the tool takes name, by")
    assert "at most 8 characters" in problems["name"]
    assert "'move'" in str(refused.value)


def test_a_tool_without_parameters_says_so() -> None:
    @tool
    def nothing() -> None: ...

    assert bound(nothing).spec.input_schema["properties"] == {}
    with pytest.raises(InvalidArguments, match="takes none"):
        bound(nothing).validate({"x": 1})


@pytest.mark.parametrize(
    ("hint", "value", "structured"),
    [
        (Point, {"x": 1, "y": 2}, {"x": 1, "y": 2}),
        (Tree, Tree(name="oak"), {"name": "oak", "children": []}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (list[int], [1, 2], {"result": [1, 2]}),
        (int, 7, {"result": 7}),
        (Point | None, None, {"result": None}),
    ],
)
def test_answers_are_structured_and_their_schema_has_an_object_at_its_root(
    hint: Any, value: Any, structured: dict[str, Any]
) -> None:
    @tool
    def answer() -> Any:
        return value

    answer.__annotations__["return"] = hint
    function = bound(answer)
    assert function.spec.output_schema is not None
    assert function.spec.output_schema["type"] == "object"
    result = function.answer(value)
    assert result.structured == structured
    assert not result.is_error


def test_a_dataclass_is_an_object_too() -> None:
    @dataclasses.dataclass
    class Size:
        width: int

    @tool
    def size() -> Any: ...

    size.__annotations__["return"] = Size
    assert bound(size).answer(Size(3)).structured == {"width": 3}


def test_text_stays_text() -> None:
    @tool
    def say() -> str:
        return "hello"

    assert bound(say).spec.output_schema is None
    assert bound(say).answer("hello") == CallResult("hello")
    assert bound(say).answer(None) == CallResult("")


def test_an_unannotated_answer_is_carried_as_json() -> None:
    @tool
    def loose():  # type: ignore[no-untyped-def]
        ...

    assert bound(loose).answer({"a": (1, 2)}) == CallResult('{"a":[1,2]}', {"a": [1, 2]})
    assert bound(loose).answer([1]) == CallResult("[1]")
    ready = CallResult("as it is")
    assert bound(loose).answer(ready) == ready


def test_an_answer_that_breaks_its_own_contract_is_an_error() -> None:
    with pytest.raises(InvalidOutput, match="own output schema refuses: y: Field required"):
        bound(move).answer({"x": 1})


def test_an_answer_that_json_cannot_carry_is_an_error() -> None:
    @tool
    def thing():  # type: ignore[no-untyped-def]
        ...

    with pytest.raises(InvalidOutput, match="of type object, which JSON cannot carry"):
        bound(thing).answer(object())


def test_def_tools_go_to_threads_unless_they_ask_for_the_loop() -> None:
    @tool
    def slow() -> None: ...

    @tool(placement="loop")
    def quick() -> None: ...

    assert bound(slow).spec.placement == "thread"
    assert bound(quick).spec.placement == "loop"
    assert not bound(quick).is_async


def test_one_tool_may_differ_from_its_plugins_runtime() -> None:
    @tool(runtime="any")
    async def neutral() -> None: ...

    assert bound(neutral).spec.runtime == "any"


def variadic(*names: str) -> None: ...


def endless() -> Any:
    yield 1


async def trickle() -> Any:
    yield 1


def two_contexts(a: Context, b: Context) -> None: ...


def aliased(x: Annotated[int, Field(alias="y")] = 1) -> None: ...


def infinite(x: float = float("inf")) -> None: ...


def unresolvable(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def unserialisable(x: ModuleType) -> None: ...


def default_in_field(x: int = Field(3)) -> None: ...


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (variadic, "cannot be passed by name"),
        (unresolvable, "Missing"),
        (unserialisable, "class 'module'"),
        (default_in_field, "write Annotated"),
        (endless, "is a generator"),
        (trickle, "is a generator"),
        (two_contexts, "both annotated Context"),
        (aliased, "has an alias"),
        (infinite, "no number for the default"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_with_the_reason(
    function: Any, reason: str
) -> None:
    with pytest.raises(PluginLoadError, match=reason):
        bound(tool(function))


@pytest.mark.parametrize("thing", [print, object(), Point, "text", lambda self: None])
def test_what_is_not_a_marked_function_is_no_tool(thing: Any) -> None:
    with pytest.raises(PluginLoadError, match="A tool is a function|is not a tool"):
        bound(thing)


def test_a_default_that_is_a_set_is_shown_in_one_order() -> None:
    @tool
    def pick(of: set[str] = {"b", "a", "c"}) -> None: ...  # noqa: B006 - never changed

    assert bound(pick).spec.input_schema["properties"]["of"]["default"] == ["a", "b", "c"]


def test_a_validator_that_crashes_makes_the_tool_unavailable() -> None:
    def crash(value: int) -> int:
        raise ZeroDivisionError

    @tool
    def fragile(x: int) -> None: ...

    fragile.__annotations__["x"] = Annotated[int, AfterValidator(crash)]
    with pytest.raises(ToolUnavailable, match="ZeroDivisionError"):
        bound(fragile).validate({"x": 1})


def test_an_answer_has_the_names_of_its_own_schema() -> None:
    class User(BaseModel):
        user_id: int = Field(serialization_alias="userId")

    @tool
    def user() -> Any: ...

    user.__annotations__["return"] = User
    function = bound(user)
    assert function.spec.output_schema is not None
    assert list(function.spec.output_schema["properties"]) == ["userId"]
    assert function.answer(User(user_id=1)).structured == {"userId": 1}


def test_numbers_that_json_lacks_are_null_in_text_and_data() -> None:
    @tool
    def limits() -> dict[str, float]:
        return {}

    result = bound(limits).answer({"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert result == CallResult('{"a":null,"b":null,"c":1.5}', {"a": None, "b": None, "c": 1.5})


def test_a_shaped_answer_is_checked() -> None:
    with pytest.raises(InvalidOutput):
        bound(move).answer(CallResult(b"bytes"))  # type: ignore[arg-type]


def test_an_answer_that_a_tool_has_shaped_is_held_to_its_schema() -> None:
    fitting, unfit, error = {"x": 1, "y": 2}, {"x": 1}, {"code": "lost"}
    assert bound(move).answer(CallResult("", fitting)).structured == fitting
    assert bound(move).answer(CallResult("", fitting, error)).structured == fitting
    for broken in (CallResult("", unfit), CallResult("moved")):
        with pytest.raises(InvalidOutput, match="own output schema refuses"):
            bound(move).answer(broken)
    # Clients may hold the data of a failure to the schema as well.
    assert bound(move).answer(CallResult("", unfit, error)) == CallResult(
        '{"x":1}', error={"code": "lost"}
    )
    assert bound(move).answer(CallResult("gone", error=error)).text == "gone"


def test_a_tool_may_answer_arguments_that_do_not_fit() -> None:
    def in_our_words(misfit: InvalidArguments, arguments: Mapping[str, Any]) -> CallResult:
        if "raise" in arguments:
            raise RuntimeError("secret")
        return CallResult("", {"ok": False, "given": list(arguments)}, {"code": misfit.code})

    @tool(on_misfit=in_our_words)
    async def shaped(a: int) -> CallResult:
        return CallResult(str(a))

    misfit = InvalidArguments("a: required, but missing")
    answer = bound(shaped).answer_to(misfit, {"b": 1})
    assert answer.structured == {"ok": False, "given": ["b"]}
    assert answer.error == {"code": "invalid_arguments"}
    with pytest.raises(InvalidArguments, match="a: required") as caught:
        bound(shaped).answer_to(misfit, {"raise": 1})
    assert caught.value is misfit
    with pytest.raises(InvalidArguments):
        bound(move).answer_to(misfit, {})
    with pytest.raises(ValueError, match="on_misfit is not for a tool that runs in a process"):
        tool(on_misfit=in_our_words, placement="process")(shaped)


@pytest.mark.parametrize("placement", ["loop", "thread", "process"])
def test_functions_of_both_kinds_can_be_placed_anywhere(placement: Any) -> None:
    @tool(placement=placement)
    async def awaited() -> None: ...

    @tool(placement=placement)
    def called() -> None: ...

    assert bound(awaited).spec.placement == placement
    assert bound(called).spec.placement == placement


@pytest.mark.parametrize("name", ["", "a.b", "x" * 65, "naïve"])
def test_a_name_that_models_cannot_call_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a tool name"):
        tool(name=name)(lambda: None)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="not a positive number"):
        tool(timeout=timeout, name="t")(lambda: None)


def test_a_modules_own_tools_are_found_in_the_order_of_its_source() -> None:
    module = sys.modules[__name__]
    assert [f.__name__ for f in tools_of(module)][:1] == ["move"]
    assert all(f.__module__ == __name__ for f in tools_of(module))
