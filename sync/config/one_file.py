"""A destination whose place is named like a file: the folder around it, with one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .refusals import Report

#: Connector of files -> the suffixes that mean its files.
_SUFFIXES = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet", ".pq")}

#: What a file destination compresses with -> its suffix.
_WRITTEN = {"gzip": ".gz", "zstd": ".zst"}
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".zip")

#: A table whose file has its very name.
_TABLE = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]*")


class OneFile(NamedTuple):
    """A file as a destination."""

    #: Its folder, and how it is compressed, if it is.
    config: dict[str, str]
    #: The only table.
    table: str


def one_file(connector: str, place: str, folder: Path) -> OneFile | None:
    """Return a destination's place as a file; None: it is a folder. A folder that is there stays one.

    Args:
        connector: the destination's.
        place: a path, relative to `folder`, or a URL.
        folder: start of relative paths.

    Raises:
        ConfigError: no table is called like this file.
    """
    name = place.rpartition("/")[2]
    plain = name.lower()
    for suffix in _COMPRESSED:
        plain = plain.removesuffix(suffix)
    found = next((each for each, suffixes in _SUFFIXES.items() if plain.endswith(suffixes)), None)
    if connector not in _SUFFIXES or found is None or ("://" not in place and (folder / place).is_dir()):
        return None
    codec = next((codec for codec, suffix in _WRITTEN.items() if name.endswith(suffix)), None)
    if connector == "parquet":
        codec = None  # its pages are compressed, not the file
    stem = name if codec is None else name.removesuffix(_WRITTEN[codec])
    table = stem.removesuffix(f".{connector}")
    if table == stem or not _TABLE.fullmatch(table):
        kinds = {"csv": "x.csv, x.csv.gz or x.csv.zst", "jsonl": "x.jsonl, x.jsonl.gz or x.jsonl.zst"}
        raise ConfigError(
            f"{place!r}: a destination that is one file of connector {connector!r} is called "
            f"{kinds.get(connector, 'x.parquet')}, where x holds letters, digits, `-`, `_` and `.` only; with a name "
            "of another kind it is a folder with a file for each table"
        )
    around = place[: -len(name)].removesuffix("/") or ("/" if place.startswith("/") else ".")
    return OneFile({"path": around} | ({} if codec is None else {"compression": codec}), table)


def take_one_file(pipeline: Pipeline, folder: Path, report: Report) -> None:
    """Let a destination whose `path` is named like a file write that file.

    Args:
        pipeline: the pipeline; its destination is changed.
        folder: folder of the pipeline file.
        report: notes a mistake.
    """
    block = pipeline.destination
    place = block.config.get("path")
    if not isinstance(place, str) or not place:
        return  # the connector says what it needs
    try:
        found = one_file(block.connector, place, folder)
    except ConfigError as error:
        report(("destination", "config", "path"), error.message)
        return
    if found is None:
        return
    for key in ("file_records", "file_bytes", "partition_by"):
        if block.config.get(key):
            report(
                ("destination", "config", key),
                f"makes several files, but `path` is one file: name a folder, or leave `{key}` out",
            )
    _check_compression(block.config, found, place, report)
    block.config.update(found.config)
    block.write_one_file(place, found.table)


def _check_compression(config: Mapping[str, Any], found: OneFile, place: str, report: Report) -> None:
    said = config.get("compression")
    if said not in _WRITTEN and said != "none":
        return  # not said, one of Parquet's own, or one that the connector refuses
    if place.endswith(".parquet") or said == found.config.get("compression", "none"):
        return
    stem = place
    for suffix in _WRITTEN.values():
        stem = stem.removesuffix(suffix)
    right = f"{stem.rpartition('/')[2]}{_WRITTEN.get(str(said), '')}"
    report(("destination", "config", "compression"), f"{said!r} does not fit the name of the file: name it {right}")
