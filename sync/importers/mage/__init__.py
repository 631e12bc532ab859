"""Convert the data integration pipelines of a Mage project to pipeline files. Writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...errors import ConfigError, nearest_match
from .blocks import UserFile, callbacks_of, leftovers, transformers_of
from .bookmarks import bookmark_of
from .connections import Connection, destination_of, source_of
from .project import Project, parts_of, sorted_blocks
from .streams import catalog_streams, entry_of
from .triggers import trigger_lines
from .values import value_of

#: Keys of a pipeline's metadata.yaml that are brought over, or that say nothing about a run.
_READ = frozenset(
    (
        "blocks",
        "callbacks",
        "conditionals",
        "type",
        "uuid",
        "name",
        "variables",
        "retry_config",
        "created_at",
        "updated_at",
        "widgets",
        "cache_block_output_in_memory",
        "run_pipeline_in_one_process",
        "data_integration",
    )
)
#: What every pipeline's reader must know.
_ALWAYS = (
    "`mage_columns` fills _mage_created_at and _mage_updated_at, as Mage does; without, records go faster",
    "in PostgreSQL Mage keeps numeric as double precision and times without a zone as timestamptz: where a table of "
    "Mage's does not fit, `state adopt` names the `types:` to copy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MagePipeline:
    """The text of one pipeline file, and what goes with it."""

    file: str
    text: str
    #: Callback and transformer files to copy.
    copies: tuple[UserFile, ...] = ()
    #: What differs, is to be checked or set, or is not brought over.
    notes: tuple[str, ...] = ()
    #: Commands that take over the tables that Mage has written.
    adoptions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Made:
    """What is gathered while a pipeline is converted."""

    notes: list[str] = field(default_factory=list)
    adoptions: list[str] = field(default_factory=list)


def read_mage(folder: Path, pipeline: str | None = None, data: Path | None = None) -> list[MagePipeline]:
    """Return the data integration pipelines of a Mage project.

    Args:
        folder: the project, with its `metadata.yaml` and `pipelines`.
        pipeline: only this one.
        data: Mage's folder of variables, where bookmarks are; default: as Mage finds it.

    Raises:
        ConfigError: it is no Mage project, or has no such pipeline.
    """
    project = Project(folder, data)
    if pipeline is not None and pipeline not in project.pipelines:
        raise ConfigError(
            f"there is no pipeline {pipeline!r}",
            path=str(folder / "pipelines"),
            allowed=tuple(project.pipelines),
            nearest=nearest_match(pipeline, project.pipelines),
        )
    chosen = [name for name in project.pipelines if pipeline in (None, name)]
    found = {name: project.yaml(f"pipelines/{name}/metadata.yaml") for name in chosen}
    ours = {name: read for name, read in found.items() if read.get("type") == "integration"}
    if not ours:
        raise ConfigError("has no data integration pipeline (`type: integration`)", path=str(folder / "pipelines"))
    return [_pipeline(project, name, read) for name, read in ours.items()]


def _pipeline(project: Project, name: str, read: Mapping[str, Any]) -> MagePipeline:
    made = _Made()
    blocks = sorted_blocks(read)
    source = source_of(project, _one(project, name, blocks, "data_loader"), made.notes)
    destination = destination_of(project, _one(project, name, blocks, "data_exporter"), made.notes)
    file = f"{name}.yaml"
    transformers, changed = transformers_of(project, blocks, made.notes)
    known = {part["block"] for part in (source.document, *transformers, destination.document)}
    callbacks, called = callbacks_of(project, read, blocks, known, made.notes)
    document: dict[str, Any] = {"pipeline": name}
    if variables := parts_of(read.get("variables")):
        document["variables"] = {key: value_of(name, str(key), value, made.notes) for key, value in variables.items()}
    document |= _retries(read.get("retry_config"), made.notes)
    crontab = trigger_lines(project, name, file, document, made.notes)
    streams = _streams(project, name, file, source, destination, made)
    document |= _stream_names(streams, made.notes)
    if not any(stream.get("run_in_parallel") for stream in catalog_streams(project, name, source)):
        document["concurrency"] = 1
    else:
        made.notes.append("run_in_parallel of single streams: `concurrency` says here how many streams run at once")
    document |= {"source": source.document}
    document |= {"transformers": transformers} if transformers else {}
    document |= {"destination": destination.document, "streams": streams}
    document |= {"callbacks": callbacks} if callbacks else {}
    made.notes += leftovers(f"pipeline {name}", read, _READ)
    made.notes += _ALWAYS
    return MagePipeline(
        file=file,
        text=_text(f"Mage's pipeline {name}", document, [*crontab, *(f"Check: {note}" for note in made.notes)]),
        copies=(*changed, *called),
        notes=tuple(made.notes),
        adoptions=tuple(made.adoptions),
    )


def _stream_names(streams: Sequence[Mapping[str, Any]], notes: list[str]) -> dict[str, Any]:
    """Let callbacks get the names that Mage gives them, where these tell the streams apart."""
    names = [str(stream["stream"]) for stream in streams]
    bare = [name.rpartition(".")[2] for name in names]
    if bare == names:
        return {}
    if len(set(bare)) == len(bare):
        return {"stream_names": "bare"}
    notes.append("two streams have one name without their schema: the keyword argument `stream` has the schema here")
    return {}


def _one(project: Project, name: str, blocks: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    found = [block for block in blocks if block.get("type") == kind]
    if len(found) != 1:
        path = project.folder / "pipelines" / name / "metadata.yaml"
        raise ConfigError(f"has {len(found)} blocks of type {kind}; exactly one is needed", path=str(path))
    return found[0]


def _retries(retry_config: Any, notes: list[str]) -> dict[str, Any]:
    config = parts_of(retry_config)
    made = {here: config[key] for key, here in (("retries", "retries"), ("delay", "retry_delay_s")) if config.get(key)}
    notes += leftovers("retry_config", config, {"retries", "delay"})
    return made


def _streams(
    project: Project, name: str, file: str, source: Connection, destination: Connection, made: _Made
) -> list[dict[str, Any]]:
    entries, left_out = [], []
    streams = catalog_streams(project, name, source)
    for stream in streams:
        entry = entry_of(stream, source, destination, alone=len(streams) == 1, notes=made.notes)
        if entry is None:
            left_out.append(str(stream.get("tap_stream_id")))
            continue
        entries.append(entry)
        if entry["write_disposition"] != "replace":
            found = bookmark_of(project, name, destination, stream, entry, made.notes)
            words = ["syncblocks", "state", "adopt", file, entry["stream"], *found]
            made.adoptions.append(shlex.join(words))
    if left_out:
        made.notes.append(f"streams that are not selected in Mage are left out: {', '.join(left_out)}")
    if not entries:
        made.notes.append("the catalog selects no stream: name them under `streams`")
    return entries


def _text(what: str, document: Mapping[str, Any], comments: Sequence[str]) -> str:
    lines = [f"Written by `syncblocks init --from-mage`: {what}.", *comments]
    head = "".join(f"# {line}\n" for comment in lines for line in comment.splitlines())
    return head + yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)


__all__ = ["MagePipeline", "read_mage"]
