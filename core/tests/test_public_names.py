"""`mcpd_core` exports what plugin authors need, and importing it costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mcpd_core
from mcpd_core import errors


@pytest.mark.parametrize("name", mcpd_core.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(mcpd_core, name) is not None
    assert name in dir(mcpd_core)


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.McpdError)
    }
    assert defined <= set(mcpd_core.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mcpd_core.nonsense  # noqa: B018


def test_no_submodule_has_the_name_of_a_public_name() -> None:
    # Importing the submodule would replace the public name.
    package = Path(mcpd_core.__file__).parent
    submodules = {path.stem for path in package.iterdir()}
    assert not submodules & set(mcpd_core.__all__)


def test_importing_the_package_imports_none_of_its_modules() -> None:
    code = "import sys, mcpd_core; print([m for m in sys.modules if m.startswith('mcpd_core.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
