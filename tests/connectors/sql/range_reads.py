"""The engine's side of a load by ranges, as plain as can be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncblocks.connectors.errors import ConnectorError, RetriableError
from syncblocks.connectors.ranges import OpenRanges, Range
from syncblocks.connectors.stream import Checkpoint
from tests.connectors.postgres.postgres_pair import rows

#: What both tables must have in common: each record's text, added up.
SUM = "select count(*), sum(hashtextextended(x::text, 0)) from {} x"


def leftovers(url: str) -> list[tuple[Any, ...]]:
    """Return what loads by ranges have left."""
    return rows(url, "select relname from pg_class where relname ~ '_syncblocks_stg' order by 1")


@dataclass
class Reads:
    """Hands the ranges of an open source on; notes what was asked of it."""

    opened: OpenRanges
    #: Called with each range before it is read.
    before: Callable[[Range], None] = lambda part: None
    retries: int = 0
    #: What was loaded is kept, whatever the error.
    keeps: bool = False
    shape: str = "plain"
    #: Ranges that an earlier load had loaded, once resumed.
    resumed: dict[int, tuple[int, int]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    finals: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ranges(self) -> Sequence[Range]:
        return self.opened.ranges

    @property
    def moment(self) -> Mapping[str, Any] | None:
        return self.opened.moment

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, tuple[int, int]]) -> bool:
        is_resumed = self.opened.resume(moment, {place: records for place, (records, _) in loaded.items()})
        self.resumed = dict(loaded) if is_resumed else {}
        return is_resumed

    def is_kept(self, error: BaseException) -> bool:
        return self.keeps

    def read(self, part: Range) -> Generator[Any, None, None]:
        self.before(part)
        return self.opened.read(part)

    def may_repeat(self, part: Range, error: ConnectorError) -> bool:
        with self.lock:
            self.retries -= 1
            self.repeated.append(part.label)
            return self.retries >= 0 and isinstance(error, RetriableError)

    def give_up(self) -> None:
        pass

    def final(self) -> Checkpoint:
        self.finals += 1
        return Checkpoint(is_final=True)
