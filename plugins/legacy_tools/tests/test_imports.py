"""Which imports of a file are certain, and which names it binds."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from mcpd_legacy_tools.requirements.imports import read_imports


def certain(text: str) -> list[str]:
    return [each.module for each in read_imports(dedent(text)).found if each.certain]


def perhaps(text: str) -> list[str]:
    return [each.module for each in read_imports(dedent(text)).found if not each.certain]


def test_what_a_file_imports_at_once_is_certain() -> None:
    text = "import a.b, c as d\nfrom e import (\n    f,\n    g as h,\n)\nwith i as y:\n    pass\n"
    imports = read_imports(text)
    assert certain(text) == ["a.b", "c", "e"]
    assert imports.found[2].names == ("f", "g")
    assert imports.binds == frozenset("adfhy")


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import x\nexcept ImportError:\n    x = None\n",
        "try:\n    import x\nexcept (KeyError, Exception):\n    pass\n",
        "try:\n    import x\nexcept:\n    pass\n",
        "try:\n    pass\nexcept ImportError:\n    import x\n",
        "if fast:\n    import x\n",
        "with suppress(ImportError):\n    import x\n",
        "for _ in ():\n    import x\n",
        "def f():\n    import x\n",
        "class C:\n    import x\n",
        "async def f():\n    with y:\n        from x import (\n            z,\n        )\n",
        "if fast:\n    def f():\n        import x\n",
    ],
)
def test_what_a_file_can_do_without_is_not(text: str) -> None:
    assert certain(text) == []
    assert perhaps(text) == ["x"]


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import x\nexcept ImportError as e:\n    raise OSError('install x') from e\n",
        "try:\n    import x\nexcept ImportError:\n    print('install x')\n    sys.exit(1)\n",
        "try:\n    import x\nexcept KeyError:\n    pass\n",
        "try:\n    pass\nfinally:\n    import x\n",
        "if __name__ == '__main__':\n    import y\nelse:\n    import x\n",
        "if TYPE_CHECKING:\n    import y\nelse:\n    import x\n",
    ],
)
def test_what_a_file_insists_on_is(text: str) -> None:
    assert certain(text) == ["x"]
    assert perhaps(text) == []


def test_what_stands_in_strings_and_comments_is_no_import() -> None:
    assert not read_imports(
        dedent('''
        """Docstring with
        import a
        """
        # import b
        text = r\'\'\'"""
        import c
        \'\'\' "x" \'y\'""""z"""

        def f():
            """
        import d
        """
            return "\\
        import e"
        ''')
    ).found


def test_definitions_are_reduced_without_losing_what_follows() -> None:
    text = """
    @decorated(
        by=1,
    )
    def f(
        a,
    ):
        x = [
    ]
        return x
    import y

    class C(
        D,
    ):
        def g(self): pass

    from z import (w)
    """
    assert certain(text) == ["y", "z"]
    assert read_imports(dedent(text)).found[0].line == 11


def test_what_cannot_be_reduced_is_parsed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def f(a=1,\nb=2):\n  return 'a'\nimport x\n"
    parsed = []
    parse = ast.parse

    def noting(source: str) -> ast.Module:
        parsed.append(source)
        return parse(source)

    monkeypatch.setattr(ast, "parse", noting)
    assert certain(text) == ["x"]
    assert parsed[-1] == text
    with pytest.raises(SyntaxError):
        read_imports("import x\ndef (\n")


def test_names_that_are_made_up_are_not_known() -> None:
    assert read_imports("from x import *\n").makes_names
    assert read_imports("def __getattr__(name): ...\n").makes_names
    assert read_imports("globals().update(x=1)\n").makes_names
    assert not read_imports("x = 1\n").makes_names
    text = """
    def f():
        global a, b
        a = b = 1
    if c:
        d: int = 1
    else:
        for e in f():
            g, h = e
    """
    assert read_imports(dedent(text)).binds == frozenset("fabdegh")


def test_it_tells_who_changes_where_modules_are_found() -> None:
    assert read_imports("import sys\nsys.path.insert(0, 'lib')\n").alters_path
    assert not read_imports("import sys\nprint(sys.path_hooks, sys.argv)\n").alters_path


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("sys.modules['x.y'] = object()", {"x"}),
        ('sys.modules.setdefault("x", object())', {"x"}),
        ("sys.modules.update(others)", {"*"}),
        ("for name in NAMES: sys.modules[name] = object()", {"*"}),
        ("sys.modules[__name__] = object()", set()),
        ("def f(name):\n    sys.modules[name] = object()", set()),
        ("print(sys.modules)", set()),
    ],
)
def test_it_tells_in_the_place_of_which_modules_it_puts_something(
    line: str, modules: set[str]
) -> None:
    assert set(read_imports(f"import sys\n{line}\n").stands_in) == modules


def test_a_table_of_modules_tells_where_names_are_made() -> None:
    table = 'WHERE = {"a": (".near", "a"), "b": "..far.off", "c": "text"}\n'
    make = "def __getattr__(name):\n    return import_module(WHERE[name][0], __name__)\n"
    assert read_imports(table + make).lazy == {"a": ".near", "b": "..far.off"}
    assert read_imports(table).lazy == {}
    forgiving = "def __getattr__(name):\n    try: ...\n    except ImportError: ...\n"
    assert read_imports(table + forgiving).lazy == {}
