"""The files of a stream at one moment, and their ranges as JSON, which any process that sees the files can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeGuard

from msgspec import Struct

from ..errors import FatalConnectorError
from ..ranges import Range
from .paths import DataFile
from .ranges import FilePart, Seen, part_of

#: What a part of a file is counted in; empty: the file is read as a whole.
Unit = Literal["", "bytes", "groups"]
#: Row groups that a file of Parquet can have: it counts them by 16 bits.
MOST_GROUPS = 1 << 15


class SplitFiles(Struct, frozen=True):
    """The files of a stream as they were at one moment, in an order that each process finds."""

    seen: Sequence[Seen]
    #: Settings that decide what records the files have.
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, files: Iterable[DataFile], settings: Mapping[str, Any]) -> Self:
        """Note the state of files that must not change."""
        return cls([Seen.of(file) for file in sorted(files, key=lambda file: file.label)], settings)

    @property
    def digest(self) -> str:
        """What tells the files from others and from themselves once they have changed; empty: nothing does.

        Other processes of the same machine find the same one.
        """
        return "" if any(one.stamp is None for one in self.seen) else _hash([self._facts, *map(_known, self.seen)])

    def ranges(self, parts: Iterable[tuple[int, DataFile, str]], share_bytes: int) -> list[Range]:
        """Return the ranges of some parts, each with its file's number and its label, in the order of the files.

        Small files share a range of at most `share_bytes`: each range costs a transaction, and workers a call.
        """
        found: list[tuple[str, dict[str, Any]]] = []
        gathered: int | None = None
        for number, file, label in parts:
            if isinstance(file, FilePart):
                found.append((label, {"file": number, **_bounds(file)}))
                gathered = None
                continue
            size = file.size_bytes()
            first = number
            if gathered is not None and gathered + size <= share_bytes:
                first, _ = found.pop()[1]["files"]
                size += gathered
            others = number - first
            name = f"{self.seen[first].file.label} and {others} more" if others else label
            found.append((name, {"files": [first, number + 1]}))
            gathered = size
        return [Range(place=place, label=label, locator=where) for place, (label, where) in enumerate(found)]

    def moment(self, ranges: Sequence[Range]) -> dict[str, Any] | None:
        """Return JSON that identifies the ranges, their files and the settings; None: some file is not local."""
        if not all(one.file.is_local for one in self.seen):
            return None
        # Paths and settings stay private, and only need comparing.
        return {"digest": _hash([self.digest, [part.locator for part in ranges]])}

    def parts(self, locator: Mapping[str, Any], unit: Callable[[DataFile], Unit]) -> list[tuple[Seen, DataFile]]:
        """Return the files of a range, and what of each belongs to it.

        Args:
            locator: of a range; whoever may write to the table that it comes from may have written it.
            unit: tells in which parts of a file are counted.

        Raises:
            FatalConnectorError: there is no such range.
        """
        if locator.keys() == {"files"}:
            first, end = self._pair(locator["files"])
            if not _is_count(end, len(self.seen)) or not _is_count(first, end - 1):
                raise _refused(self.seen)
            return [(one, one.file) for one in self.seen[first:end]]
        number = locator.get("file")
        if not _is_count(number, len(self.seen) - 1):
            raise _refused(self.seen)
        one = self.seen[number]
        counted = unit(one.file)
        if not counted or locator.keys() != {"file", counted}:
            raise _refused(self.seen)
        start, end = self._pair(locator[counted])
        most = one.file.size_bytes() if counted == "bytes" else MOST_GROUPS
        if end is None and counted == "bytes" and _is_count(start, most - 1):
            return [(one, part_of(one.file, start=start))]
        if not _is_count(end, most) or not _is_count(start, end - 1):
            raise _refused(self.seen)
        bounds: dict[str, Any] = {"start": start, "end": end} if counted == "bytes" else {"groups": range(start, end)}
        return [(one, part_of(one.file, **bounds))]

    def _pair(self, said: Any) -> tuple[Any, Any]:
        if not isinstance(said, list) or len(said) != 2:
            raise _refused(self.seen)
        return said[0], said[1]

    @property
    def _facts(self) -> list[Any]:
        return sorted((name, str(value)) for name, value in self.settings.items())


def sizes(files: Sequence[DataFile], unit: Callable[[DataFile], Unit]) -> dict[str, Any]:
    """Return what is known of the size of files without a look into them, for `expected_ranges`.

    Returns:
        `bytes` of all of them, and `whole`: number and bytes of those that are not split. Nothing, where a store has
        not told the sizes; no `whole`, where files are in archives.
    """
    if not all(file.is_local or file.listed for file in files):
        return {}
    found: dict[str, Any] = {"bytes": sum(file.size_bytes() for file in files)}
    if not any(file.name.lower().endswith(".zip") for file in files):
        whole = [file for file in files if not unit(file)]
        found["whole"] = len(whole), sum(file.size_bytes() for file in whole)
    return found


def expected_ranges(locator: Mapping[str, Any], count: int) -> int | None:
    """Return the number of ranges into which files are split; None: it is not known yet.

    Args:
        locator: of the stream: number of `files`, what `sizes` has returned, and row `groups` of Parquet.
        count: how many ranges that many bytes make, if all of them can be split.
    """
    if "whole" not in locator:
        return None
    files, (whole, whole_bytes) = int(locator["files"]), locator["whole"]
    share = round(count * whole_bytes / max(int(locator["bytes"]), 1))
    expected = min(whole, max(share, 1))
    if files > whole:
        expected += max(1, min(count - share, locator.get("groups", count)))
    return int(expected if files == 1 else max(expected, 2))


def _known(one: Seen) -> list[Any]:
    assert one.stamp is not None
    # Without the device number, which changes with each mount.
    return [one.file.label, one.file.partitions, one.stamp[1:] if one.file.is_local else one.stamp]


def _bounds(file: FilePart) -> dict[str, Any]:
    if file.groups is not None:
        return {"groups": [file.groups[0], file.groups[-1] + 1]}
    return {"bytes": [file.start, file.end]}


def _hash(facts: Any) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _is_count(value: object, most: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= most


def _refused(seen: Sequence[Seen]) -> FatalConnectorError:
    return FatalConnectorError(
        f"there is no such range in the {len(seen)} files of the stream: somebody has written to the run store's table "
        "of ranges"
    )


__all__ = ["SplitFiles", "Unit", "expected_ranges", "sizes"]
