"""What keeps a file from being imported, told without importing anything."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mcpd_legacy_tools import requirements
from mcpd_legacy_tools.requirements import (
    Missing,
    closure,
    distribution_of,
    install_line,
    missing_for,
)

#: Ends whoever imports it.
BOMB = "import os\nos._exit(99)\n"


@pytest.fixture(autouse=True)
def nothing_is_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests change is noticed at once."""
    monkeypatch.setattr(closure, "_BELIEVED", 0.0)
    monkeypatch.setattr(closure, "_TRUSTED", 0.0)
    monkeypatch.setattr(requirements, "_closures", {})


def missing(directory: Path, files: Mapping[str, str], file: str = "pack/cat/tool.py") -> Missing:
    """Write the files of a package and ask about one of them."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.suffix == ".py" and path.parent != directory:
            (path.parent / "__init__.py").touch()
    (directory / "pack").mkdir(exist_ok=True)
    return missing_for(str(directory / file), "pack", str(directory / "pack"))


def test_a_file_that_needs_nothing_is_ready(tmp_path: Path) -> None:
    found = missing(tmp_path, {"pack/cat/tool.py": f"import json, sys\nimport pytest.x\n{BOMB}"})
    assert found == Missing()
    assert not found.hopeless
    assert found.reason == found.hint == ""


def test_what_is_missing_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    found = missing(tmp_path, {"pack/cat/tool.py": f"{BOMB}import absent_b.c\nimport absent_a\n"})
    assert found.hopeless
    assert found.modules == ("absent_a", "absent_b")
    assert found.install == "pip install absent_a absent_b"
    assert found.reason == "It needs the modules absent_a, absent_b, missing here."


def test_the_closure_runs_through_the_tree(tmp_path: Path) -> None:
    found = missing(
        tmp_path,
        {
            "pack/cat/tool.py": "from ..engines import deep\nfrom .near import help_me\n",
            "pack/cat/near.py": "import absent_near\ndef help_me(): ...\n",
            "pack/engines/__init__.py": "import absent_package\n",
            "pack/engines/deep.py": f"import pack.engines.deeper\n{BOMB}",
            "pack/engines/deeper.py": "import absent_deep\nfrom . import deep\n",
            "pack/engines/other.py": "import absent_other\n",
            "pack/__init__.py": "import absent_top\n",
        },
    )
    assert found.modules == ("absent_deep", "absent_near", "absent_package", "absent_top")


def test_what_is_only_used_on_occasion_keeps_nothing_from_running(tmp_path: Path) -> None:
    found = missing(
        tmp_path,
        {
            "pack/cat/tool.py": "from .engine import f\ndef g():\n    import absent_local\n"
            "    from pack.later import h\n",
            "pack/cat/engine.py": "try:\n    import absent_tried\nexcept ImportError:\n    pass\n"
            "def f(): ...\n",
            "pack/later.py": "import absent_later, absent_local\n",
        },
    )
    assert not found.hopeless
    assert found.optional == ("absent_later", "absent_local", "absent_tried")


def test_what_the_tree_itself_lacks_is_told_with_file_and_line(tmp_path: Path) -> None:
    found = missing(
        tmp_path,
        {
            "pack/cat/tool.py": "import json\nfrom pack.gone import x\n",
            "pack/cat/__init__.py": "from .near import present, vanished\n",
            "pack/cat/near.py": "import pack.cat.tool.part\npresent = 1\n",
        },
    )
    assert found.modules == ()
    assert found.install == ""
    assert found.broken == (
        "pack/cat/__init__.py:1 imports 'vanished' from .near, which does not have it.",
        "pack/cat/near.py:1 imports pack.cat.tool.part, though tool.py has no parts.",
        "pack/cat/tool.py:2 imports pack.gone, which the tree lacks.",
    )


def test_a_relative_import_does_not_leave_the_package(tmp_path: Path) -> None:
    found = missing(tmp_path, {"pack/cat/tool.py": "from ...cat import x\n"})
    assert found.broken == ("pack/cat/tool.py:1 imports from above the package that it is in.",)


def test_a_neighbour_that_python_does_not_see_is_not_to_be_installed(tmp_path: Path) -> None:
    files = {"pack/cat/tool.py": "import helpers_of_mine\n", "pack/cat/helpers_of_mine.py": ""}
    found = missing(tmp_path, files)
    assert found.modules == ()
    (told,) = found.broken
    assert told.startswith("pack/cat/tool.py:1 imports helpers_of_mine, which lies in pack/cat, ")


def test_who_changes_where_modules_are_found_gets_the_benefit_of_the_doubt(tmp_path: Path) -> None:
    found = missing(
        tmp_path,
        {
            "pack/cat/tool.py": "import sys\nsys.path.insert(0, 'here')\nimport helpers, absent_a\n"
            "from pack.gone import x\n",
            "pack/cat/helpers.py": "",
        },
    )
    assert not found.hopeless
    # Nobody has a file that is called like what everybody knows.
    text = "import sys\nsys.path.append('there')\nimport xgboost, absent_a\n"
    assert missing(tmp_path, {"pack/cat/tool.py": text}).modules == ("xgboost",)


def test_what_somebody_stands_in_for_is_not_missing(tmp_path: Path) -> None:
    text = "import sys\nsys.modules['absent_a'] = sys\nimport absent_a.b, absent_b\n"
    assert missing(tmp_path, {"pack/cat/tool.py": text}).modules == ("absent_b",)
    text = "import sys\nfor each in NAMES:\n    sys.modules[each] = sys\nimport absent_a\n"
    assert missing(tmp_path, {"pack/cat/tool.py": text}) == Missing()


def test_names_that_a_package_has_are_not_looked_for_as_modules(tmp_path: Path) -> None:
    found = missing(
        tmp_path,
        {
            "pack/cat/tool.py": "from pack.lazy import engine\nfrom pack.own import engine, more\n",
            "pack/lazy/__init__.py": "def __getattr__(name): ...\n",
            "pack/lazy/engine.py": "import absent_lazy\n",
            "pack/own/__init__.py": "engine = None\nfrom . import more\n",
            "pack/own/engine.py": "import absent_own\n",
            "pack/own/more.py": "import absent_more\n",
        },
    )
    assert found.modules == ("absent_more",)


def test_a_package_that_imports_when_it_is_asked_is_followed(tmp_path: Path) -> None:
    found = missing(
        tmp_path,
        {
            "pack/cat/tool.py": "from pack.lazy import engine, part\n",
            "pack/lazy/__init__.py": 'OF = {"engine": (".deep.engine", "engine"), "x": ".other"}\n'
            "def __getattr__(name):\n    return getattr(import_module(OF[name][0]), name)\n",
            "pack/lazy/deep/engine.py": "import absent_engine\n",
            "pack/lazy/other.py": "import absent_other\n",
            "pack/lazy/part.py": "import absent_part\n",
        },
    )
    assert found.modules == ("absent_engine",)


def test_a_package_may_be_called_otherwise_than_its_directory(tmp_path: Path) -> None:
    (tmp_path / "checkout/cat").mkdir(parents=True)
    tool = tmp_path / "checkout/cat/tool.py"
    tool.write_text("from old.server.tools.cat.near import f\nimport old.other\n")
    (tmp_path / "checkout/cat/near.py").write_text("import absent_near\nf = 1\n")
    found = missing_for(str(tool), "old.server.tools", str(tmp_path / "checkout"))
    assert found.modules == ("absent_near", "old")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    files = {
        "pack/cat/tool.py": "from .near import x\n",
        "pack/cat/near.py": "import absent_a\nx=1",
    }
    assert missing(tmp_path, files).modules == ("absent_a",)
    near = tmp_path / "pack/cat/near.py"
    near.write_text("import absent_b, absent_a\nx=1")
    assert missing(tmp_path, {}).modules == ("absent_a", "absent_b")
    near.unlink()
    assert missing(tmp_path, {}).broken
    near.write_text("x=1")
    assert missing(tmp_path, {}) == Missing()


def test_what_was_installed_meanwhile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    files = {"pack/cat/tool.py": f"import absent_till_now\n{BOMB}"}
    assert missing(tmp_path, files).modules == ("absent_till_now",)
    (site / "absent_till_now.py").write_text(BOMB)
    os.utime(site, (time.time() + 10, time.time() + 10))
    assert missing(tmp_path, files) == Missing()


def test_parts_of_a_namespace_are_looked_for_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "site/google/protobuf").mkdir(parents=True)
    (tmp_path / "site/google/protobuf/__init__.py").write_text(BOMB)
    monkeypatch.setattr(closure, "_found", set())
    text = "import google.protobuf.message\nfrom google.cloud.storage import Client\n"
    found = missing(tmp_path, {"pack/cat/tool.py": text})
    assert found.install == "pip install google-cloud-storage"
    assert "google" not in sys.modules or not hasattr(sys.modules["google"], "protobuf")


def test_files_that_cannot_be_read_are_left_to_the_import(tmp_path: Path) -> None:
    (tmp_path / "pack/cat").mkdir(parents=True)
    (tmp_path / "pack/cat/latin.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "pack/cat/zero.py").write_bytes(b"\0")
    (tmp_path / "pack/cat/half.py").write_text("import absent_a\ndef (")
    (tmp_path / "pack/cat/large.py").write_text("import absent_a\n" + "#" * closure.MOST_BYTES)
    text = "".join(f"from .{name} import x\n" for name in ("latin", "zero", "half", "large"))
    assert missing(tmp_path, {"pack/cat/tool.py": text}) == Missing()


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("cv2", "opencv-python"),
        ("PIL.Image", "pillow"),
        ("yaml", "PyYAML"),
        ("bs4", "beautifulsoup4"),
        ("sklearn.cluster", "scikit-learn"),
        ("fitz", "pymupdf"),
        ("faiss", "faiss-cpu"),
        ("google.generativeai.types", "google-generativeai"),
        ("numpy.linalg", "numpy"),
    ],
)
def test_distributions_have_names_of_their_own(module: str, distribution: str) -> None:
    assert distribution_of(module) == distribution
    assert install_line([module]) == f"pip install {distribution}"


def test_a_distribution_is_installed_once() -> None:
    assert install_line(["pylab", "mpl_toolkits", "PIL"]) == "pip install matplotlib pillow"
    assert install_line([]) == ""


def test_programs_that_pip_does_not_install_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = missing(tmp_path, {"pack/cat/tool.py": "import pytesseract\n"})
    assert found.programs == ("tesseract (tesseract-ocr)",)
    (tmp_path / "tesseract").write_text("#!/bin/sh\n")
    (tmp_path / "tesseract").chmod(0o755)
    assert missing(tmp_path, {}).programs == ()


def test_parts_of_python_that_are_packed_apart_are_not_for_pip() -> None:
    found = Missing(modules=("absent_a", "tkinter"))
    assert found.install == "pip install absent_a"
    assert found.hint == "pip install absent_a and apt install python3-tk"
