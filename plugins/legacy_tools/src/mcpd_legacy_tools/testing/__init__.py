"""A tree of tools to test with: `plant` writes it, and says what there is to find in it."""

from __future__ import annotations

from .expected import Expected as Expected
from .expected import ExpectedExclusion as ExpectedExclusion
from .expected import ExpectedProblem as ExpectedProblem
from .expected import ExpectedTool as ExpectedTool
from .tree import CATEGORIES as CATEGORIES
from .tree import SHAPES as SHAPES
from .tree import TOOLS as TOOLS
from .tree import plant as plant

__all__ = [
    "CATEGORIES",
    "SHAPES",
    "TOOLS",
    "Expected",
    "ExpectedExclusion",
    "ExpectedProblem",
    "ExpectedTool",
    "plant",
]
