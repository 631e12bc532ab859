"""`syncblocks sync`: write two places and a few options as a pipeline file."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from syncblocks.connectors.settings import resolve_path

from ..errors import ConfigError
from . import Pipeline, load_pipeline
from .endpoints import Endpoint, infer
from .remedies import typed_ways
from .yaml_document import read_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Quick:
    """A pipeline made from options, and its file."""

    pipeline: Pipeline
    path: Path
    text: str
    #: The one file that the destination is, as typed; empty: it has a table for each stream.
    file: str = ""
    #: Environment variables that the file needs and that are not set: the typed passwords.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def save(self) -> bool:
        """Write the file; return False if it exists with the same content."""
        if self.path.exists():
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("x", encoding="utf-8") as file:
            file.write(self.text)
        return True


def quick_pipeline(
    source: str,
    destination: str,
    *,
    folder: Path,
    save: Path | None = None,
    streams: Sequence[str] = (),
    write_disposition: str | None = None,
    incremental: Sequence[str] = (),
    keys: Sequence[str] = (),
    destination_table: str | None = None,
    on_lossy: str | None = None,
) -> Quick:
    """Return a pipeline from one place to another; writes nothing and connects to nothing.

    Args:
        source: the source, see `endpoints.infer`.
        destination: the destination.
        folder: the current folder.
        save: the file to write; default: named after both places, in `folder`; where a file of that name is a pipeline
            between other places, also after their connectors, or numbered.
        streams: names or globs; empty: all streams.
        write_disposition: for all streams.
        incremental: bookmark_properties; empty: FULL_TABLE.
        keys: key_properties; empty: the source's keys.
        destination_table: the table of the one stream; None: named after the stream.
        on_lossy: of the pipeline.

    Raises:
        ConfigError: something cannot be inferred, or the file exists with other content.
    """
    _refuse_queries(source, streams)
    known = os.environ
    left = infer(source, "source", folder, known)
    right = infer(destination, "destination", folder, {**known, **left.environment})
    path = _free_path(left, right, folder) if save is None else folder / save
    options: dict[str, Any] = {}
    if incremental:
        options |= {"replication_method": "INCREMENTAL", "bookmark_properties": list(incremental)}
    if keys:
        options["key_properties"] = list(keys)
    if write_disposition:
        options["write_disposition"] = write_disposition
    if destination_table:
        options["destination_table"] = destination_table
    if right.table and destination_table:
        raise ConfigError(f"{destination} is one file, and its name the table's", key="--destination-table")
    if right.table:
        _refuse_in_one_file(destination, incremental, write_disposition)
        options["destination_table"] = right.table
    document = {
        "pipeline": path.stem,
        "source": _block(left, folder, path),
        "destination": _block(right, folder, path),
        **({"on_lossy": on_lossy} if on_lossy else {}),
        "streams": [{"stream": each, **options} for each in streams or ("*",)],
    }
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)
    text = f"# Written by `syncblocks sync`; `syncblocks run {path.name}` does the same.\n{body}"
    _refuse_overwriting(path, text)
    environment = {**left.environment, **right.environment}
    pipeline = load_pipeline(path, environ={**known, **environment}, text=text)
    file = destination if right.table else ""
    if not path.exists():
        pipeline._origin = pipeline._origin._replace(ways=typed_ways(file))
    return Quick(pipeline=pipeline, path=path, text=text, file=file, environment=environment)


def _free_path(left: Endpoint, right: Endpoint, folder: Path) -> Path:
    """Return the first file, by its name, that is not there or is a pipeline between these very places."""
    name = f"{left.name}_to_{right.name}"
    by_kind = f"{left.name}_{left.connector}_to_{right.name}_{right.connector}"
    names = itertools.chain([name, by_kind], (f"{by_kind}_{number}" for number in itertools.count(2)))
    return next(path for each in names if not _has_others(path := folder / f"{each}.yaml", left, right))


def _has_others(path: Path, left: Endpoint, right: Endpoint) -> bool:
    """Tell whether a file is a pipeline between other places; one that cannot be read is not known to be."""
    try:
        there = read_document(path).value
        found = [(there[role]["connector"], there[role]["config"]) for role in ("source", "destination")]
        # Settings may have been added by hand.
        return any(
            connector != each.connector or not each.config.items() <= config.items()
            for (connector, config), each in zip(found, (left, right), strict=True)
        )
    except (ConfigError, KeyError, TypeError, AttributeError):
        return False


def _block(endpoint: Endpoint, folder: Path, path: Path) -> dict[str, Any]:
    """Return the block of an endpoint; relative paths start at the file's folder."""
    config = dict(endpoint.config)
    if "path" in config and path.parent.resolve() != folder.resolve() and "://" not in config["path"]:
        config["path"] = str(resolve_path(config["path"], folder))
    return {"connector": endpoint.connector, "config": config}


def _refuse_queries(source: str, streams: Sequence[str]) -> None:
    """Refuse a SELECT, which other tools take in the place of a stream."""
    for key, text in (("SRC", source), *(("--stream", stream) for stream in streams)):
        if re.match(r"query:|\s*(select|with)\s", text, re.IGNORECASE):
            raise ConfigError("a query is `query` of a stream in a pipeline file, not of this command", key=key)


def _refuse_in_one_file(place: str, incremental: Sequence[str], write_disposition: str | None) -> None:
    """Refuse what makes a file for each commit."""
    if incremental or write_disposition == "append":
        raise ConfigError(
            f"{place} is one file, which a FULL_TABLE stream replaces or merges into: leave out "
            f"{'--incremental' if incremental else '--mode append'}, or name a folder, such as "
            f"{place.rpartition('.')[2]}:folder",
            key="DST",
        )


def _refuse_overwriting(path: Path, text: str) -> None:
    try:
        there = path.read_text(encoding="utf-8") if path.exists() else text
    except (OSError, ValueError):
        there = ""
    if there != text:
        raise ConfigError(
            f"{path} exists and differs; nothing was written. `--save OTHER.yaml` writes another file, "
            f"`syncblocks run {path.name}` runs the existing one",
            key="--save",
        )
