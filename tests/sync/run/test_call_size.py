"""How many groups travel in one call to a worker."""

from __future__ import annotations

from syncblocks.sync.run.executors.remote import MOST_GROUPS, call_size


def _calls(groups: int, at_once: int, group_s: float) -> list[int]:
    """Return the sizes of all calls of a run whose groups take equally long, while all workers are busy."""
    sizes, sent = list[int](), 0
    while sent < groups:
        # Each worker has two calls: the first of them are still at work.
        ended = sum(sizes[: -2 * at_once])
        elapsed_s = max(ended, 1) * group_s / at_once
        sizes.append(call_size(groups - sent, at_once, ended=ended, elapsed_s=elapsed_s))
        sent += sizes[-1]
    return sizes


def test_calls_become_small_so_that_all_workers_end_at_about_one_time() -> None:
    sizes = _calls(200, 4, group_s=5.0)
    assert sizes[:3] == [MOST_GROUPS] * 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-14:] == [1] * 14


def test_groups_that_are_known_to_be_short_travel_in_fewer_calls() -> None:
    sizes = _calls(200, 4, group_s=0.02)
    assert len(sizes) <= 26 < 37 == len(_calls(200, 4, group_s=5.0))
    assert max(sizes) <= MOST_GROUPS
    assert sizes[-2:] == [1, 1]


def test_a_call_never_holds_more_than_a_workers_share_of_what_is_left() -> None:
    for waiting in range(1, 40):
        assert call_size(waiting, 4, ended=10_000, elapsed_s=1.0) <= 1 + waiting // 4


def test_nothing_is_known_before_a_group_has_ended() -> None:
    assert [call_size(waiting, 4, ended=0, elapsed_s=0.0) for waiting in (1, 7, 16, 1000)] == [1, 1, 2, MOST_GROUPS]
