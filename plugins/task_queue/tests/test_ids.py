"""Ids of tasks cannot be guessed, and those of one commit are neighbours in their index."""

from __future__ import annotations

from mcpd_task_queue.sqlite.ids import Ids

NOW = 1_800_000_000.0


def test_no_two_are_alike_however_many_are_made_at_once() -> None:
    ids, others = Ids(), Ids()
    made = [source.new(NOW) for _ in range(1_000) for source in (ids, others)]
    assert len({id_[4:] for id_ in made}) == 2_000
    assert all(len(id_) == 32 and set(id_) <= set("0123456789abcdef") for id_ in made)


def test_they_begin_with_the_time_in_steps_that_come_round_again() -> None:
    ids = Ids()
    here, soon, later, round_again = (
        ids.new(NOW + seconds)[:4] for seconds in (0, 1 / 128, 1 / 64, 1_024)
    )
    assert here == soon == round_again
    assert int(later, 16) == int(here, 16) + 1
