"""Errors of the run store beside `StateError`."""

from __future__ import annotations

from typing import ClassVar

from ..errors import SyncError


class LostRun(SyncError):
    """This process may not write to the run any more: another one took it over, or the stream is closed already."""

    code: ClassVar[str] = "lost_run"
