"""The resources and the prompt of the plugin ``hello``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mcpd_core import ResourceNotFound, ToolError, prompt, resource

GREETINGS = {"de": "Hallo", "en": "Hello", "eo": "Saluton", "es": "Hola", "fr": "Bonjour"}


def known_languages(prefix: str) -> list[str]:
    """Complete a language, for the template and the prompt below."""
    return [language for language in sorted(GREETINGS) if language.startswith(prefix)]


@resource("hello://languages", title="Languages")
async def hello_languages() -> list[str]:
    """The languages that there is a greeting in."""
    # What is not text becomes JSON.
    return sorted(GREETINGS)


@resource(
    "hello://greetings/{language}",
    title="Greeting",
    mime_type="text/plain",
    complete={"language": known_languages},
)
async def hello_greeting(language: str) -> str:
    """The greeting of one language."""
    # A value comes from outside. It is looked up here, and never made part of a path.
    if language not in GREETINGS:
        raise ResourceNotFound(f"There is no greeting in {language!r}.")
    return GREETINGS[language]


@prompt(title="Letter", complete={"language": known_languages})
async def hello_letter(
    name: Annotated[str, Field(description="Whom the letter is for.", min_length=1)],
    language: Annotated[str, Field(description="The language to write in.")] = "en",
) -> list[tuple[str, str]]:
    """Have a short letter written."""
    if language not in GREETINGS:
        raise ToolError(f"There is no greeting in {language!r}.", hint="Read hello://languages.")
    return [
        ("user", f"Write a short letter to {name}. Its language is {language!r}."),
        ("assistant", f"{GREETINGS[language]}, {name},"),
    ]
