"""The pipeline files of a folder, read again when they change."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ..clock import Clock
from ..config.head import Head, read_head
from ..config.yaml_document import Document
from ..errors import ConfigError
from ..pipeline_files import SUFFIXES, is_pipeline_file
from ..schedules import Schedule

#: A file is read when it has not changed for so long: until then somebody may still write it.
SETTLED_S = 2.0

#: What changes when a file is written: time, size and inode.
_Stamp = tuple[int, int, int]


class ServedFile(Struct, frozen=True):
    """A pipeline file that a server takes."""

    path: Path
    pipeline: str
    schedule: Schedule | None


class Taken(Struct, frozen=True):
    """What the files of a folder say at a moment."""

    #: Pipeline -> head of its file.
    heads: Mapping[str, Head]
    #: File -> why it is broken.
    broken: Mapping[Path, str]


class _Seen(Struct):
    path: Path
    stamp: _Stamp
    #: Monotonic time at which the stamp was first seen.
    since: float
    is_read: bool = False
    #: None: it is no pipeline file, or was not read yet.
    found: ServedFile | ConfigError | None = None
    head: Head | None = None


class PipelineFiles:
    """The pipeline files of a folder whose run store is the server's."""

    def __init__(self, folder: Path, store_url: str, clock: Clock, environ: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._store_url = store_url
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        #: Name of each file -> what was seen of it.
        self._seen: dict[str, _Seen] = {}
        #: Pipeline -> its file, for those that may be started.
        self.usable: dict[str, ServedFile] = {}
        #: File -> why none of its pipeline's runs is started.
        self.broken: dict[Path, str] = {}
        #: Pipeline -> what its file says; of the rest of the document only the connectors of source and destination.
        self.heads: dict[str, Head] = {}
        #: Whether a file is there that was never read.
        self.is_reading = True

    def look(self) -> bool:
        """Read what has settled; return whether `usable` or `broken` has changed.

        Raises:
            OSError: the folder cannot be read.
        """
        now = self._clock.monotonic()
        there = _stamps(self._folder)
        is_changed = False
        for name, stamp in there.items():
            seen = self._seen.get(name)
            if seen is None or seen.stamp != stamp:
                # What was read before counts until the new text has settled.
                former = (None, None) if seen is None else (seen.found, seen.head)
                seen = _Seen(self._folder / name, stamp, now, found=former[0], head=former[1])
                self._seen[name] = seen
            if not seen.is_read and now - seen.since >= SETTLED_S:
                self._read(seen.path, seen)
                is_changed = True
        for name in self._seen.keys() - there.keys():
            del self._seen[name]
            is_changed = True
        if is_changed:
            self._sort()
        self.is_reading = any(not seen.is_read and seen.found is None for seen in self._seen.values())
        return is_changed

    def is_settled(self, file: ServedFile) -> bool:
        """Whether a file is as it was read; until it is, no process may read it."""
        seen = self._seen.get(file.path.name)
        return seen is not None and seen.is_read and seen.stamp == _stamp(file.path)

    def is_awaited(self, path: Path) -> bool:
        """Whether a file is there that was not read yet."""
        seen = self._seen.get(path.name)
        return seen is not None and not seen.is_read and seen.found is None

    def _read(self, path: Path, seen: _Seen) -> None:
        seen.is_read, seen.found, seen.head = True, None, None
        if not is_pipeline_file(path):
            return
        try:
            head = read_head(path)
            if head.store(self._environ).url != self._store_url:
                message = "is another run store than the server's: start a server of its own for it"
                raise head.document.error(("store",), message)
        except ConfigError as error:
            seen.found = error
        else:
            seen.found, seen.head = ServedFile(path, head.pipeline, head.schedule), _small(head)

    def _sort(self) -> None:
        by_name: dict[str, list[ServedFile]] = {}
        broken: dict[Path, str] = {}
        for _, seen in sorted(self._seen.items()):
            if isinstance(seen.found, ConfigError):
                broken[seen.path] = str(seen.found)
            elif seen.found is not None:
                by_name.setdefault(seen.found.pipeline, []).append(seen.found)
        usable = {name: files[0] for name, files in by_name.items() if len(files) == 1}
        for name, files in by_name.items():
            for file in files if len(files) > 1 else ():
                names = ", ".join(each.path.name for each in files)
                broken[file.path] = f"{file.path}: {len(files)} files are pipeline {name!r}: {names}"
        # Other threads read these: each is replaced as a whole.
        self.heads = {
            name: head for name, file in usable.items() if (head := self._seen[file.path.name].head) is not None
        }
        self.usable, self.broken = usable, broken


def _small(head: Head) -> Head:
    """Return a head without its document, of which a server has ten thousand: but for what pages show."""
    parts = {key: head.document.value.get(key) for key in ("source", "destination")}
    names = {key: part.get("connector") for key, part in parts.items() if isinstance(part, dict)}
    value = {key: {"connector": name} for key, name in names.items() if isinstance(name, str)}
    return replace(head, document=Document(head.document.path, value, {}))


def _stamps(folder: Path) -> dict[str, _Stamp]:
    """Return the YAML files of a folder, by name; one call of the system for each, since there may be ten thousand."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.lower()
            is_yaml = name.endswith(SUFFIXES) and name not in SUFFIXES
            if is_yaml and (stamp := _stamp(entry)) is not None:
                found[entry.name] = stamp
    return found


def _stamp(file: Path | os.DirEntry[str]) -> _Stamp | None:
    """Return None if it is no file, or no more."""
    try:
        status = file.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if stat.S_ISREG(status.st_mode) else None
