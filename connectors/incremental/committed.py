"""Records at a bookmark that were committed already: the last version of each key, or how often each record was.

Pure: keys and records are hashes, in bytes (`checkpoints.py`) or as texts (`singer/resent.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import pyarrow as pa

from ..arrow import compute as pc

H = TypeVar("H", bound=Hashable)


class Committed(Generic[H]):
    """What was committed at or past a bookmark, and what of it one read has met again.

    A version is the hash of a key and the hash of a record. A stream without keys has None for the key: there, a record
    is committed as often as it stands in the source. With keys a record is dropped only if it equals the last committed
    version of its key: a record that goes back to a former value is new.

    An append does not demand that its keys are unique: records of one key that stand in the source side by side are
    all known again. A merge keeps one of them, so it must end with the last: once it was sent another version of a key,
    every later one of this read is sent.

    Args:
        versions: one for each record that was committed. The key None in a stream with keys: a bookmark of an earlier
            release, which does not tell the key.
        is_keyed: the stream's records have keys.
        is_merged: sending a record twice does no harm.
    """

    def __init__(self, versions: Iterable[tuple[H | None, H]] = (), *, is_keyed: bool, is_merged: bool) -> None:
        #: Committed versions that this read has not met yet.
        self.left = Counter(versions)
        self._is_keyed = is_keyed
        self._is_merged = is_merged
        self._replaced: set[H | None] = set()

    def are_new(self, versions: Iterable[tuple[H | None, H]], may_be: pa.Array) -> list[bool]:
        """Tell of each record whether it must be sent.

        Args:
            versions: of the records that may have been committed, in order.
            may_be: of each record, whether it may have been.
        """
        found: list[bool] = pc.invert(may_be).to_pylist()
        places = [place for place, is_new in enumerate(found) if not is_new]
        for place, version in zip(places, versions, strict=True):
            found[place] = self._is_new(version)
        return found

    def _is_new(self, version: tuple[H | None, H]) -> bool:
        key, record = version
        if not (self._is_merged and key in self._replaced):
            for each in (version, (None, record)):
                if self.left[each] > 0:
                    self.left[each] -= 1
                    if not self.left[each]:
                        del self.left[each]
                    return False
        if self._is_keyed:
            self._replaced.add(key)
        return True

    def replace(self, keys: Iterable[H | None]) -> None:
        """Note keys of which another version was sent that is not compared here."""
        self._replaced.update(keys)

    def is_replaced(self, key: H | None) -> bool:
        """Tell whether this read has sent another version of a key."""
        return key in self._replaced

    def unread(self, *, is_complete: bool) -> list[tuple[H | None, H]]:
        """Return what was not met in this read and is still the last version of its key: it may come again.

        Args:
            is_complete: everything at or past the bookmark was read. What has no key then is gone from the source, or
                the former version of another record.
        """
        if self._is_merged and not self._is_keyed:
            return []  # nothing tells which of them were replaced; a merge may send them again
        is_left_out = self._is_keyed and is_complete
        return [
            (key, record)
            for key, record in self.left.elements()
            if key not in self._replaced and not (is_left_out and key is None)
        ]


def last_of_each_key(versions: Sequence[tuple[H | None, H]]) -> list[tuple[H | None, H]]:
    """Return one version a key: the one that comes last."""
    return list(dict(versions).items())


def first_of_each_key(versions: Sequence[tuple[H | None, H]]) -> list[tuple[H | None, H]]:
    """Return one version a key: the one that comes first."""
    return last_of_each_key(versions[::-1])[::-1]


__all__ = ["Committed", "first_of_each_key", "last_of_each_key"]
