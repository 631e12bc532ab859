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


def test_calls_that_end_or_begin_after_the_end_leave_no_connection_open() -> None:
    """Those of a thread that was given up, whose function has ended at last."""
    opened: list[Counted] = []
    make: Any = lambda: Counted(opened)  # noqa: E731
    sessions = Sessions(make)
    with sessions.lease():
        pass
    with sessions.lease():
        assert [each.is_open for each in opened] == [True], "it is used again"
        sessions.close()
        assert opened[0].is_open
    with sessions.lease():
        assert len(opened) == 2
    assert [each.is_open for each in opened] == [False, False]
