"""The promises of a task store, as tests to inherit, for whoever writes another engine.

An engine of your own is tested by a subclass that says how to open a store on the test's clock::

    class TestMyEngine(TaskStoreConformance):
        @pytest.fixture
        def open_store(self, tmp_path: Path, clock: Clock) -> Iterator[OpenStore]:
            opened = []

            def open_(name: str = "tasks", **options: Any) -> TaskStore:
                store = MyTaskStore(
                    tmp_path / name,
                    clock=lambda: clock.wall,
                    monotonic=lambda: clock.steady,
                    **options,
                )
                opened.append(store)
                return store

            yield open_
            for store in opened:
                store.close().result(10)

It needs pytest, as ``mcpd-core[testing]`` brings it.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"mcpd_task_queue.testing.{suite}"
        for suite in (
            "bounding",
            "capable",
            "concurrent",
            "exporting",
            "limiting",
            "looking",
            "managing",
            "noting",
            "ordering",
            "outcomes",
            "recurring",
            "results",
            "retrying",
            "standing",
            "submitting",
        )
    )
)

from .bounding import Bounding  # noqa: E402 - after the line that has its assertions explained
from .capable import Capable  # noqa: E402
from .concurrent import Concurrent  # noqa: E402
from .exporting import Exporting  # noqa: E402
from .limiting import Limiting  # noqa: E402
from .looking import Looking  # noqa: E402
from .managing import Managing  # noqa: E402
from .noting import Noting  # noqa: E402
from .ordering import Ordering  # noqa: E402
from .outcomes import Outcomes  # noqa: E402
from .recurring import Recurring  # noqa: E402
from .results import Results  # noqa: E402
from .retrying import Retrying  # noqa: E402
from .standing import Standing  # noqa: E402
from .submitting import Submitting  # noqa: E402
from .suite import Clock, New, OpenStore  # noqa: E402

__all__ = ["Clock", "New", "OpenStore", "TaskStoreConformance"]


class TaskStoreConformance(
    Submitting,
    Ordering,
    Standing,
    Limiting,
    Bounding,
    Outcomes,
    Looking,
    Exporting,
    Managing,
    Noting,
    Recurring,
    Results,
    Retrying,
    Capable,
    Concurrent,
):
    """What every engine promises; a subclass defines the fixture ``open_store``.

    A test that needs what the engine's `Capabilities` say it cannot do is skipped, and says so.
    """
