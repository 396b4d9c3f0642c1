"""The start and the end of the runtimes of a host."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

from mcpd_core.errors import ToolUnavailable
from mcpd_core.host.lanes import Lanes
from mcpd_core.importer import Importer
from mcpd_core.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Slow(Importer):
    """Has loaded nothing until it is told that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.loading: Future[Any] = Future()

    def load(self, *_: Any, **__: Any) -> Future[Any]:
        return self.loading


async def test_a_runtime_whose_import_outlasts_the_host_does_not_start() -> None:
    importer = Slow()
    lanes = Lanes(importer, Settings())
    patient = asyncio.ensure_future(lanes.runtime("trio"))
    await asyncio.sleep(0)
    await lanes.aclose()
    importer.loading.set_result(None)
    with pytest.raises(ToolUnavailable, match="closing"):
        await patient
    assert not lanes.trio.running
    assert lanes.trio.rung == "none"
