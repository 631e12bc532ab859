"""Records at a bookmark that were committed already: the last version of each key, or the count of each record.

Pure: keys and records are hashes, in bytes (`checkpoints.py`) or as texts (`programs/resent.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import pyarrow as pa

from ..arrow import compute as pc

H = TypeVar("H", bound=Hashable)


class CommittedVersions(Generic[H]):
    """The versions committed at or past a bookmark, and those of them that one read has met.

    A version is the hash of a key and the hash of a record. Without keys, the first hash is None, and a record counts
    as committed as often as it was committed. With keys, a record is dropped only if it equals the last committed
    version of its key: a record that returns to a former value is new.

    An append does not need unique keys: several records of one key in the source are all recognised. A merge keeps
    one of them, and must end with the last: after another version of a key was sent, every later one is sent.

    Args:
        versions: one for each committed record. With keys, a key of None comes from a bookmark of an earlier release,
            which did not keep keys.
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
        """Tell for each record whether it must be sent.

        Args:
            versions: those of the records that may have been committed, in order.
            may_be: for each record, whether it may have been committed.
        """
        found: list[bool] = pc.invert(may_be).to_pylist()
        places = [place for place, is_new in enumerate(found) if not is_new]
        for place, version in zip(places, versions, strict=True):
            found[place] = self._is_new(version)
        return found

    def _is_new(self, version: tuple[H | None, H]) -> bool:
        if self.meets(version):
            return False
        if self._is_keyed:
            self._replaced.add(version[0])
        return True

    def meets(self, version: tuple[H | None, H]) -> bool:
        """Tell whether a record was committed, and count it as met."""
        key, record = version
        if self._is_merged and key in self._replaced:
            return False
        for each in (version, (None, record)):
            if self.left[each] > 0:
                self.left[each] -= 1
                if not self.left[each]:
                    del self.left[each]
                return True
        return False

    def replace(self, keys: Iterable[H | None]) -> None:
        """Note keys of which the read sends another version without asking here."""
        self._replaced.update(keys)

    def is_replaced(self, key: H | None) -> bool:
        """Tell whether this read has sent another version of a key."""
        return key in self._replaced

    def unread(self, *, is_complete: bool) -> list[tuple[H | None, H]]:
        """Return the versions that this read has not met, and that are the last of their keys: they may come again.

        Args:
            is_complete: all records at or past the bookmark were read. A version without a key is then gone from the
                source, or a former version of another record.
        """
        if self._is_merged and not self._is_keyed:
            return []  # which of them were replaced is unknown; a merge may send them again
        is_left_out = self._is_keyed and is_complete
        return [
            (key, record)
            for key, record in self.left.elements()
            if key not in self._replaced and not (is_left_out and key is None)
        ]


def last_of_each_key(versions: Sequence[tuple[H | None, H]]) -> list[tuple[H | None, H]]:
    """Return the last version of each key."""
    return list(dict(versions).items())


def first_of_each_key(versions: Sequence[tuple[H | None, H]]) -> list[tuple[H | None, H]]:
    """Return the first version of each key."""
    return last_of_each_key(versions[::-1])[::-1]


__all__ = ["CommittedVersions", "first_of_each_key", "last_of_each_key"]
