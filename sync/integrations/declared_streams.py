"""The streams of a pipeline as an orchestrator declares them: from the pipeline file and its catalog file alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from syncblocks.connectors.stream import Stream

from ..config import Pipeline, exact_name
from ..config.arguments import checks_arguments
from ..config.catalog_file import CatalogStream, read_catalog
from ..config.names import load_names
from ..plan.selection import merged_settings, select_names

#: What orchestrators take: a pipeline file, or a mapping.
PipelineFile = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredStream:
    """One stream that the file selects."""

    name: str
    #: Column of the source -> the name of its type, None: as it is found. Empty: there is no catalog file.
    columns: Mapping[str, str | None]
    key_properties: tuple[str, ...]
    tags: tuple[str, ...]
    #: Whether source and destination are compared after a run.
    is_verified: bool
    #: Whether its records must meet `checks`.
    is_checked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A pipeline's name, and its streams in run order."""

    pipeline: str
    streams: tuple[DeclaredStream, ...]


@checks_arguments
def declare(
    given: PipelineFile,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Declared:
    """Return the streams of a pipeline. Connects to nothing, and reads no secret.

    Args:
        given: the pipeline file, or a mapping.
        streams: names or globs, only these; default: all.
        tags: only streams that have one of them; default: all.
        folder: of a mapping: where its relative paths start.

    Raises:
        ConfigError: the file is wrong, or a glob needs names that only the source or a catalog file has.
    """
    pipeline = load_names(given, folder=folder)
    catalog = read_catalog(pipeline)
    known = {} if catalog is None else dict(catalog.streams)
    if catalog is None:
        _demand_names(pipeline)
    nothing = CatalogStream(key_properties=(), columns={})
    for entry in pipeline.streams:
        if (name := exact_name(entry.stream)) is not None:
            known.setdefault(name, nothing)
    offered = [
        Stream(name=name, schema=pa.schema([]), key_properties=each.key_properties, is_view=each.is_view)
        for name, each in known.items()
    ]
    names = select_names(pipeline, offered, streams or (), tags=tags or ()).wanted
    _, settings = merged_settings(pipeline, {stream.name: stream for stream in offered})
    found = (_declared(pipeline, name, known[name], settings[name]) for name in names)
    return Declared(pipeline=pipeline.pipeline, streams=tuple(found))


def _declared(pipeline: Pipeline, name: str, kept: CatalogStream, settings: Mapping[str, Any]) -> DeclaredStream:
    verify = settings.get("verify")
    return DeclaredStream(
        name=name,
        columns=kept.columns,
        key_properties=kept.key_properties,
        tags=tuple(settings.get("tags") or ()),
        is_verified=pipeline.verify if verify is None else verify,
        is_checked=bool(settings.get("checks")),
    )


def _demand_names(pipeline: Pipeline) -> None:
    for place, entry in enumerate(pipeline.streams):
        if exact_name(entry.stream) is None:
            raise pipeline.error(
                ("streams", place, "stream"),
                f"{entry.stream!r} is a pattern, and the source is not asked for its names here: write them into a "
                "catalog file with `syncblocks discover --save`, and name it as `catalog:` in the pipeline file",
            )
