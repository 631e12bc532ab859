"""How one call ended, as the process that made it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: How a call ended, as far as this process can tell.
Kind = Literal["returned", "raised", "missing", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """End of one call."""

    kind: Kind
    error: str | None = None
    #: Log lines, such as why there is no data.
    notes: tuple[str, ...] = ()
    #: `repr` of what the function returned, cut; None if nobody asked.
    value: str | None = None
