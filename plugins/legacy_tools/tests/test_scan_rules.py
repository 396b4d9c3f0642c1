"""What is a tool and what is not, and what the code says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_legacy_tools.scan.schemas import sound, sound_object

from .scan_kit import Draft202012Validator, reason_of, scanned, tool_of, write

# --- functions that are no tools ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def main(): ...", "it is the entry of a command line"),
        ("import click\n@click.command()\ndef f(): ...", "a command of a command line"),
        ("@app.get('/')\ndef f(): ...", "a route of a web application (@app.get)"),
        ("import pytest\n@pytest.fixture\ndef f(): ...", "a fixture of a test"),
        (
            "from contextlib import contextmanager\n@contextmanager\ndef f(): ...",
            "it is a context manager",
        ),
        ("def register_my_tools(server): ...", "it registers tools with a server"),
        ("def build_parser(): ...", "it is a part of a command line"),
        (
            "from typing import Callable\ndef f(call: Callable): ...",
            "it needs what JSON cannot carry: call (Callable)",
        ),
        ("class S: ...\ndef f(s: S): ...", "it needs what JSON cannot carry: s (S)"),
        ("class S: ...\ndef f() -> S: ...", "it returns what JSON cannot carry (S)"),
        ("class S: ...\ndef f() -> 'S': ...", "it returns what JSON cannot carry (S)"),
        (
            "import logging\ndef f() -> logging.Logger: ...",
            "it returns what JSON cannot carry (logging.Logger)",
        ),
    ],
)
def test_functions_that_are_no_tools(tmp_path: Path, source: str, reason: str) -> None:
    assert reason in reason_of(tmp_path, source)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("category/__init__.py", "its file is a package's __init__.py"),
        ("category/_engine.py", "its file is private"),
        ("category/deep/tests/check.py", "its file belongs to tests"),
        ("category/conftest.py", "its file belongs to tests"),
        ("category/date_helpers.py", "its file holds helpers: the name is 'date_helpers'"),
        ("utils.py", "its file holds helpers: the name is 'utils'"),
    ],
)
def test_files_whose_functions_are_no_tools(tmp_path: Path, file: str, reason: str) -> None:
    assert reason in reason_of(tmp_path, "def f(): ...", file)


@pytest.mark.parametrize("file", ["a/file_types.py", "a/test_runner.py", "tests/a.py", "base_x.py"])
def test_files_whose_names_only_look_like_it(tmp_path: Path, file: str) -> None:
    assert len(scanned(write(tmp_path, {file: "def f(): ..."})).tools) == 1


def test_what_is_private_is_not_spoken_of(tmp_path: Path) -> None:
    found = scanned(
        write(tmp_path, {"a/b.py": "def _f(): ...\nclass _T:\n  def execute(self): ..."})
    )
    assert (found.tools, found.excluded) == ((), ())


def test_what_the_code_marks_is_a_tool_whatever_its_name_and_file(tmp_path: Path) -> None:
    source = "@tool_metadata(category='x')\ndef main(): ...\n"
    found = scanned(write(tmp_path, {"a/helpers.py": source}))
    assert [tool.function for tool in found.tools] == ["main"]


def test_what_only_runs_as_a_program_is_not_there(tmp_path: Path) -> None:
    source = "if __name__ == '__main__':\n    def f(): ...\n"
    assert scanned(write(tmp_path, {"a/b.py": source})).excluded == ()


def test_of_several_definitions_the_last_one_counts(tmp_path: Path) -> None:
    source = """
    try:
        import nothing
        def f(a: int): ...
    except ImportError:
        def f(b: int): ...
    """
    assert set(tool_of(tmp_path, source).input_schema["properties"]) == {"b"}


def test_another_name_of_a_function_is_left_out(tmp_path: Path) -> None:
    found = scanned(write(tmp_path, {"a/b.py": "def f(): ...\ng = f\n"}))
    assert [tool.function for tool in found.tools] == ["f"]
    assert [(e.function, e.reason) for e in found.excluded] == [("g", "it is another name of f")]


# --- what the code says besides heads -------------------------------------------------------------


def test_a_decorator_states_the_contract(tmp_path: Path) -> None:
    source = """
    from server import RUNTIME_TRIO, tool_metadata
    @tool_metadata(runtime=RUNTIME_TRIO, timeout_seconds=5, mcp_description="Said.",
                   mcp_schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    async def f(a): "Not said."
    """
    tool = tool_of(tmp_path, source)
    assert (tool.runtime, tool.timeout, tool.description) == ("trio", 5.0, "Said.")
    assert tool.input_schema == {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_what_a_stated_schema_does_not_describe_the_docstring_does(tmp_path: Path) -> None:
    source = """
    def f(a, b):
        'Do it.\\n\\n:param a: One.\\n:param b: Two.'
    TOOLS = [{'function': f, 'input_schema': {'a': {'type': 'integer'},
                                              'b': {'description': 'Said.'}, 'c': {}}}]
    """
    assert tool_of(tmp_path, source).input_schema["properties"] == {
        "a": {"type": "integer", "description": "One."},
        "b": {"description": "Said."},
        "c": {},
    }


@pytest.mark.parametrize(
    ("stated", "runtime"),
    [("'trio'", "trio"), ("'fastapi'", "asyncio"), ("'auto'", "asyncio"), ("x()", "asyncio")],
)
def test_an_attribute_states_the_runtime(tmp_path: Path, stated: str, runtime: str) -> None:
    assert tool_of(tmp_path, f"async def f(): ...\nf._mcp_runtime = {stated}\n").runtime == runtime


def test_a_plain_function_runs_in_a_thread_of_the_host(tmp_path: Path) -> None:
    assert tool_of(tmp_path, "def f(): ...\nf._mcp_runtime = 'trio'\n").runtime == "asyncio"


def test_a_wrapping_decorator_names_the_tool(tmp_path: Path) -> None:
    source = "@wrap_function_as_tool(name='better', description='Said.')\ndef f(): ...\n"
    tool = tool_of(tmp_path, source)
    assert (tool.name, tool.function, tool.description) == ("category__better", "f", "Said.")


@pytest.mark.parametrize(
    "listed",
    [
        "TOOLS = [{'name': 'better', 'function': f, 'description': make()}]",
        "MY_TOOLS = ({'name': 'better', 'handler': f},)",
        "TOOLS = {'better': f}",
        "TOOLS: dict = {'better': {'function': f}}",
    ],
)
def test_lists_of_tools_name_them(tmp_path: Path, listed: str) -> None:
    tool = tool_of(tmp_path, f"def f(): 'Said.'\n{listed}\n")
    assert (tool.name, tool.kind, tool.description) == ("category__better", "listed", "Said.")


def test_a_list_of_functions_makes_them_tools(tmp_path: Path) -> None:
    assert tool_of(tmp_path, "def _f(): ...\nTOOLS = [_f, 5, other.f]\n").function == "_f"


# --- classes --------------------------------------------------------------------------------------

CLASS = """
class Base:
    category = "general"
    async def execute(self, parameters: dict): ...

class Tool(Base):
    '''The class.'''
    def __init__(self, service=None):
        super().__init__(description="Said.")
        self.name = "measure"
        self.input_schema = {"width": {"type": "number", "required": True}}
"""


def test_a_class_is_a_tool(tmp_path: Path) -> None:
    found = scanned(write(tmp_path, {"a/b.py": CLASS}))
    (tool,) = found.tools
    assert (tool.name, tool.function, tool.kind) == ("a__measure", "Tool.execute", "class")
    assert (tool.description, tool.is_async, tool.calling) == ("Said.", True, "mapping")
    assert tool.input_schema == {
        "type": "object",
        "properties": {"width": {"type": "number"}},
        "required": ["width"],
    }
    assert [each.function for each in found.excluded] == ["Base.execute"]


def test_a_class_without_a_schema_is_read_like_a_function(tmp_path: Path) -> None:
    source = """
    class Tool:
        @property
        def name(self):
            return "measure"
        def execute(self, width: float, unit: str = "m"): "Measure."
    """
    tool = tool_of(tmp_path, source)
    assert (tool.name, tool.calling, tool.description) == (
        "category__measure",
        "keywords",
        "Measure.",
    )
    assert tool.input_schema["required"] == ["width"]


def test_a_class_that_takes_a_mapping_and_says_no_more_takes_anything(tmp_path: Path) -> None:
    source = "class T:\n    name = 't'\n    def execute(self, params): ...\n"
    assert tool_of(tmp_path, source).input_schema == {
        "type": "object",
        "properties": {},
        "additionalProperties": True,
    }


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("class T:\n    def execute(self): ...", "its class states no name"),
        ("class T(ABC):\n    name = 't'\n    def execute(self): ...", "a base of other classes"),
        (
            "class T:\n    name = 't'\n    @abstractmethod\n    def execute(self): ...",
            "a base of other classes",
        ),
        (
            "class T:\n    name = 't'\n    def __init__(self, db): ...\n    def execute(self): ...",
            "its class needs db to be made",
        ),
        (
            "class T:\n    name = 't'\n    def execute(self, call: Callable): ...",
            "it needs what JSON cannot carry",
        ),
    ],
)
def test_classes_that_are_no_tools(tmp_path: Path, source: str, reason: str) -> None:
    assert reason in reason_of(tmp_path, source)


def test_a_class_that_wraps_a_function_is_left_out_for_it(tmp_path: Path) -> None:
    source = "def t(): ...\nclass T:\n    name = 't'\n    def execute(self, params): ...\n"
    found = scanned(write(tmp_path, {"a/b.py": source}))
    assert [tool.function for tool in found.tools] == ["t"]
    assert found.excluded[0].reason == "it wraps the function t, which is offered"


# --- schemas that the code states -----------------------------------------------------------------


def test_what_is_no_schema_is_left_out_of_it() -> None:
    stated = {
        "type": "object",
        "properties": {
            "a": {"type": "str", "description": 5, "minimum": "x", "enum": []},
            "b": {"type": ["string", "none"], "pattern": "(", "format": "date"},
            "c": "int",
            "d": {"type": "array", "items": "float"},
            "e": {"$ref": "#/nowhere", "type": "whatever"},
            "f": {"type": "string", "nullable": True},
            "g": {"anyOf": [{"type": "bool"}, 5], "enum": [1, 1, True]},
        },
        "required": ["a", "a", 5],
    }
    made = sound_object(stated)
    assert made == {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": ["string", "null"], "format": "date"},
            "c": {"type": "integer"},
            "d": {"type": "array", "items": {"type": "number"}},
            "e": {},
            "f": {"type": ["string", "null"]},
            "g": {"anyOf": [{"type": "boolean"}, {}], "enum": [1, True]},
        },
        "required": ["a"],
    }
    Draft202012Validator.check_schema(made)


@pytest.mark.parametrize("stated", [5, None, ["a"], {"a": 5}])
def test_what_is_nothing_of_the_kind_is_no_schema(stated: object) -> None:
    assert sound_object(stated) is None


WORDS = st.sampled_from(
    """type properties items required enum anyOf minimum pattern string object array int nullable
    additionalProperties const default minLength uniqueItems a b prefixItems not""".split()
)
STATED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.text(max_size=2)), inner)
    ),
    max_leaves=20,
)


@given(STATED)
def test_whatever_is_stated_what_is_made_of_it_is_sound(stated: object) -> None:
    Draft202012Validator.check_schema(sound(stated))
    made = sound_object(stated)
    if made is not None:
        Draft202012Validator.check_schema(made)
        assert made["type"] == "object"
