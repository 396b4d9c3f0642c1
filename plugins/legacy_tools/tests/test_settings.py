"""The model of the settings has the rules of `options`, and every key that it reads."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mcpd_legacy_tools import options
from mcpd_legacy_tools.plugin import mcpd_settings
from mcpd_legacy_tools.settings import ConfinementSettings, LegacyToolsSettings, TreeSettings


def test_the_section_is_named_after_the_plugin() -> None:
    assert mcpd_settings() == ("legacy_tools", LegacyToolsSettings)


def test_the_model_has_the_keys_that_are_read() -> None:
    def keys(model: type[BaseModel]) -> set[str]:
        return set(model.model_fields)

    assert keys(ConfinementSettings) == set(options.Confinement.__match_args__)
    assert keys(TreeSettings) == keys(ConfinementSettings) | {"path", "name"}
    for key in keys(LegacyToolsSettings):
        with pytest.raises(options.OptionsError) as caught:
            options.read({key: object()})
        assert caught.value.key == key
        assert "there is no such setting" not in caught.value.problem


def test_what_is_not_said_is_the_same_for_both() -> None:
    settings, read = LegacyToolsSettings(), options.read({})
    for key in ("installed", "selection", "auto_install", "cache"):
        assert getattr(settings, key) == getattr(read, key)


@pytest.mark.parametrize(
    "section", [{"paths": "/a"}, {"trees": [{}]}, {"timeout": -1}, {"selektion": "all"}]
)
def test_the_model_refuses_what_reading_refuses(section: dict[str, Any]) -> None:
    with pytest.raises(options.OptionsError) as expected:
        options.read(section)
    with pytest.raises(ValidationError, match="legacy_tools") as caught:
        LegacyToolsSettings.model_validate(section)
    assert expected.value.problem in str(caught.value)


def test_a_whole_section() -> None:
    section = {
        "paths": ["/a"],
        "trees": [{"path": "/b", "isolation": "process"}],
        "categories": {"c": {"timeout": 5}},
    }
    settings = LegacyToolsSettings.model_validate(section)
    assert settings.trees[0].isolation == "process"
    assert settings.categories["c"].timeout == 5
