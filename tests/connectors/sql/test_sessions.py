"""The connections of a connector: each is closed, whenever the call that has it ends."""

from __future__ import annotations

from typing import Any

from syncblocks.connectors.sql.session import Sessions


class Counted:
    """A session that knows whether it is open."""

    def __init__(self, opened: list[Counted]) -> None:
        self.is_open = True
        opened.append(self)

    def rollback(self) -> None:
        assert self.is_open

    def close(self) -> None:
        self.is_open = False


def test_after_the_end_no_connection_is_left_open_and_a_run_that_waited_keeps_its_new_ones() -> None:
    """A run that waits for another one closes its connections, which may keep a file, and plans anew with others."""
    opened: list[Counted] = []
    make: Any = lambda: Counted(opened)  # noqa: E731
    sessions = Sessions(make)
    with sessions.lease():
        pass
    with sessions.lease():
        assert [each.is_open for each in opened] == [True], "it is used again"
        sessions.close()
        assert opened[0].is_open
    assert not opened[0].is_open
    for _ in range(3):
        with sessions.lease():
            assert [each.is_open for each in opened] == [False, True], "one is opened, and used again"
    sessions.close()
    assert not opened[1].is_open
