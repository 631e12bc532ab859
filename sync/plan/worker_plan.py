"""Some streams of a plan, planned again by a worker: what that costs does not grow with the number of all streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from syncblocks.connectors.protocols import NamesTables
from syncblocks.connectors.stream import Stream

from ..config import Pipeline, exact_name, glob_matches
from ..errors import mistakes

if TYPE_CHECKING:
    from ..config.catalog_file import CatalogFile

#: Our own tables in a source that was once a destination; no glob matches them.
RESERVED_PREFIX = "_syncblocks"


class WorkerPlan(Struct, frozen=True, kw_only=True):
    """What all parts of one plan share. Checks across streams are not repeated: the plan has passed them."""

    #: Destination tables, each by its one name -> the streams of the whole plan that write it.
    writers: Mapping[str, Sequence[str]]
    catalog: CatalogFile | None
    #: Streams that entries of the file name -> the places of the entries.
    named: Mapping[str, tuple[int, ...]]
    #: Places of the entries that name no stream, with their globs.
    globs: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, pipeline: Pipeline, tables: Mapping[str, str], names: NamesTables | None) -> WorkerPlan:
        """Return what the parts of a plan share.

        Args:
            pipeline: as it was planned.
            tables: streams of the whole plan -> their destination tables.
            names: of the destination, if it has the capability.
        """
        one_names = tables if names is None else {name: names.one_name(table) for name, table in tables.items()}
        named: dict[str, tuple[int, ...]] = {}
        globs = []
        for place, entry in enumerate(pipeline.streams):
            if (name := exact_name(entry.stream)) is None:
                globs.append((place, entry.stream))
            else:
                named[name] = (*named.get(name, ()), place)
        return cls(writers=writers_of(one_names), catalog=catalog_of(pipeline), named=named, globs=tuple(globs))

    def entries(self, stream: Stream) -> list[int]:
        """Return the places of the entries that are about a stream of the plan, in their order."""
        by_glob = () if stream.is_view or is_reserved(stream.name) else self.globs
        return sorted(
            [*self.named.get(stream.name, ()), *(at for at, glob in by_glob if glob_matches(glob, stream.name))]
        )


def catalog_of(pipeline: Pipeline) -> CatalogFile | None:
    """Return what the pipeline's catalog file says; None: it has none, and what reads one is not imported."""
    if pipeline.catalog is None:
        return None
    from ..config.catalog_file import read_catalog

    with mistakes():
        return read_catalog(pipeline)


def writers_of(tables: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the streams of each table, from the table of each stream."""
    writers: dict[str, list[str]] = {}
    for name, table in tables.items():
        writers.setdefault(table, []).append(name)
    return writers


def is_reserved(name: str) -> bool:
    """Tell whether a stream is a table of ours."""
    return any(part.startswith(RESERVED_PREFIX) for part in name.split("."))


__all__ = ["RESERVED_PREFIX", "WorkerPlan", "catalog_of", "is_reserved", "writers_of"]
