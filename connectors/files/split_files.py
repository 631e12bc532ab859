"""The files of a stream at one moment, and their ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from msgspec import Struct

from ..ranges import Range
from .paths import DataFile
from .ranges import FilePart, Seen, part_of

#: Most files of a stream that are opened before the load to find columns and types that no schema says.
SAMPLE_FILES = 100

#: What a part of a file is counted in; empty: the file is read as a whole.
Unit = Literal["", "bytes", "groups"]


class SplitFiles(Struct, frozen=True):
    """The files of a stream as they were at one moment, in an order that a later run finds, too."""

    seen: Sequence[Seen]
    #: Settings that decide what records the files have.
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, files: Iterable[DataFile], settings: Mapping[str, Any]) -> Self:
        """Note the state of files that must not change."""
        return cls([Seen.of(file) for file in sorted(files, key=lambda file: file.label)], settings)

    def ranges(self, parts: Iterable[tuple[int, DataFile, str]], share_bytes: int) -> list[Range]:
        """Return the ranges of some parts, each with its file's number and its label, in the order of the files.

        Small files share a range of at most `share_bytes`: each range costs a transaction.
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
        # Without the device number, which changes with each mount.
        known = [[one.file.label, one.file.partitions, (one.stamp or ())[1:]] for one in self.seen]
        files = _hash([self._facts, *known])
        return {"digest": _hash([files, [part.locator for part in ranges]])}

    def parts(self, locator: Mapping[str, Any]) -> list[tuple[Seen, DataFile]]:
        """Return the files of a range, and what of each belongs to it."""
        if "files" in locator:
            return [(one, one.file) for one in self.seen[slice(*locator["files"])]]
        one = self.seen[locator["file"]]
        if "groups" in locator:
            return [(one, part_of(one.file, groups=range(*locator["groups"])))]
        start, end = locator["bytes"]
        return [(one, part_of(one.file, start=start, end=end))]

    @property
    def _facts(self) -> list[Any]:
        return sorted((name, str(value)) for name, value in self.settings.items())


def sampled(files: Sequence[DataFile]) -> Sequence[DataFile]:
    """Return the files themselves if they are few, else the first, the last, and some at equal distances between."""
    if len(files) <= SAMPLE_FILES:
        return files
    return [files[place * (len(files) - 1) // (SAMPLE_FILES - 1)] for place in range(SAMPLE_FILES)]


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


def _bounds(file: FilePart) -> dict[str, Any]:
    if file.groups is not None:
        return {"groups": [file.groups[0], file.groups[-1] + 1]}
    return {"bytes": [file.start, file.end]}


def _hash(facts: Any) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


__all__ = ["SplitFiles", "Unit", "expected_ranges", "sampled", "sizes"]
