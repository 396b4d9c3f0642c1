"""The model of the section ``[legacy_tools]``, for what documents and checks settings.

The rules are those of `options`, which listing reads without pydantic; this model says what the
keys are for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import options


class ConfinementSettings(BaseModel):
    """Where code runs, and what it may use there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    isolation: Annotated[
        Literal["none", "process"] | None,
        Field(
            description="'none': in the server's own process. 'process': in one worker process of "
            "the tree, which keeps the state of its modules."
        ),
    ] = None
    memory_mb: Annotated[
        int | None,
        Field(ge=options.LEAST_MEMORY_MB, description="MiB that such a process may use."),
    ] = None
    cpu_seconds: Annotated[
        int | None, Field(ge=1, description="Seconds of CPU time that one call may use there.")
    ] = None
    timeout: Annotated[
        float | None,
        Field(gt=0, le=31_536_000, description="Seconds after which a call is cancelled."),
    ] = None


class TreeSettings(ConfinementSettings):
    """One tree, where it needs settings of its own."""

    path: Annotated[str, Field(description="The directory that holds the categories.")]
    name: Annotated[
        str, Field(description="Tells it from others, in names of tools and of processes.")
    ] = ""


class LegacyToolsSettings(ConfinementSettings):
    """Which trees of tools are served, and how."""

    paths: Annotated[
        list[str], Field(description="Trees: directories that hold directories of tools.")
    ] = []
    trees: Annotated[
        list[TreeSettings], Field(description="Trees that need settings of their own.")
    ] = []
    installed: Annotated[
        bool,
        Field(description="Whether the tools of an installed ipfs_datasets_py are served as well."),
    ] = True
    selection: Annotated[
        Literal["all", "strict"],
        Field(
            description="'all': every public function and tool class, but for what the rules leave "
            "out. 'strict': what the old server would have listed."
        ),
    ] = "all"
    include: Annotated[
        list[str],
        Field(
            description="Patterns such as 'audit_tools__*' or 'audit_tools/record_*'. When there "
            "are any, only what matches one is served."
        ),
    ] = []
    exclude: Annotated[list[str], Field(description="Patterns of what is not served.")] = []
    categories: Annotated[
        dict[str, ConfinementSettings],
        Field(description="What holds for single categories, by name."),
    ] = {}
    auto_install: Annotated[
        bool, Field(description="Whether old code may install packages while it is imported.")
    ] = False
    cache: Annotated[
        str,
        Field(
            description="The file that keeps what was found from one listing to the next. By "
            "default it is in the user's cache directory."
        ),
    ] = ""

    @model_validator(mode="before")
    @classmethod
    def _reads(cls, section: Any) -> Any:
        if isinstance(section, dict):
            options.read(section)
        return section
