"""The result of one call, sent from the child process to the engine."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

#: How a call ended: "missing": no such file or function; "load": the file does not load.
Kind = Literal["returned", "raised", "missing", "load"]


class Answer(Struct, frozen=True, kw_only=True):
    """Result of one call."""

    kind: Kind
    error: str | None = None
    #: Messages for the log, such as why there is no data.
    notes: tuple[str, ...] = ()
    #: `repr` of the function's result, shortened; None if not asked for.
    value: str | None = None
