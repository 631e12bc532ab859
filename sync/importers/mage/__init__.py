"""Convert the data integration pipelines of a Mage project to pipeline files. Writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from ...errors import ConfigError, nearest_match
from .blocks import UserFile, callbacks_of, leftovers, transformers_of
from .bookmarks import bookmark_of
from .conditionals import when_of
from .connections import MageConnection, destination_of, source_of
from .notifications import notifications_of
from .project import Project, parts_of, sorted_blocks
from .streams import catalog_streams, entry_of, naming_of, stream_id
from .triggers import trigger_lines
from .values import value_of

#: Keys of a pipeline's metadata.yaml that are brought over, or that say nothing about a run.
_READ = frozenset(
    (
        "blocks",
        "callbacks",
        "conditionals",
        "notification_config",
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
        "description",
    )
)
_MAGE_COLUMNS = "`mage_columns` fills _mage_created_at and _mage_updated_at, as Mage does; without, records go faster"
#: What Mage's tables are like, by the destination's kind.
_TABLES = {
    "postgresql": (
        "Mage keeps numeric as double precision and times without a zone as timestamptz: where a table of Mage's does "
        "not fit, `state adopt` names the `types:` to copy",
    ),
    "mysql": (
        "Mage keeps decimal as double, times and booleans as texts, and puts `_` before names such as `name`: where a "
        "table of Mage's does not fit, `state adopt` names the `types:` and the `rename:` to copy",
    ),
}


class MagePipeline(Struct, frozen=True, kw_only=True):
    """The text of one pipeline file, and what goes with it."""

    file: str
    text: str
    #: Callback and transformer files to copy.
    copies: tuple[UserFile, ...] = ()
    #: What differs, is to be checked or set, or is not brought over.
    notes: tuple[str, ...] = ()
    #: Commands that take over the tables that Mage has written.
    adoptions: tuple[str, ...] = ()


def read_mage(
    folder: Path, pipeline: str | None = None, data: Path | None = None
) -> tuple[list[MagePipeline], list[str]]:
    """Return the data integration pipelines of a Mage project, and which others are left out, and why.

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
    made, left_out, errors = list[MagePipeline](), list[str](), list[ConfigError]()
    for name in project.pipelines if pipeline is None else [pipeline]:
        try:
            read = project.yaml(f"pipelines/{name}/metadata.yaml")
            if read.get("type") == "integration":
                made.append(_pipeline(project, name, read))
            else:
                left_out.append(f"pipeline {name} is left out: its type is {read.get('type')}, not integration")
        except ConfigError as error:  # such as one that somebody has only begun
            errors.append(error)
            left_out.append(f"pipeline {name} is left out: {error}")
    if made:
        return made, left_out
    if errors:
        raise errors[0]
    raise ConfigError("has no data integration pipeline (`type: integration`)", path=str(folder / "pipelines"))


def _pipeline(project: Project, name: str, read: Mapping[str, Any]) -> MagePipeline:
    notes: list[str] = []
    blocks = sorted_blocks(read)
    source = source_of(project, _one(project, name, blocks, "data_loader"), notes)
    destination = destination_of(project, _one(project, name, blocks, "data_exporter"), notes)
    file = f"{name}.yaml"
    transformers, changed = transformers_of(project, blocks, notes)
    known = {part["block"] for part in (source.document, *transformers, destination.document)}
    callbacks, called = callbacks_of(project, read, blocks, known, notes)
    document: dict[str, Any] = {"pipeline": name}
    if variables := parts_of(read.get("variables")):
        document["variables"] = {key: value_of(name, str(key), value, notes) for key, value in variables.items()}
    document |= _retries(read.get("retry_config"), notes)
    crontab = trigger_lines(project, name, file, document, notes)
    catalog = catalog_streams(project, name, read, source)
    chosen = _selected(catalog, source, destination, notes)
    streams = [entry for _, entry in chosen]
    naming = naming_of((stream for stream, _ in chosen), destination, notes)
    adoptions = tuple(_adoptions(project, name, file, destination, chosen, notes))
    document |= _stream_names(streams, notes)
    has_bare_names = "stream_names" in document or all("." not in entry["stream"] for entry in streams)
    when = when_of(
        project,
        read,
        source.document["block"],
        document.get("variables", {}),
        has_bare_names=has_bare_names,
        notes=notes,
    )
    for entry in streams:
        entry |= when
    callbacks += notifications_of(project, read, notes, has_timeout="run_timeout_s" in document)
    if not any(stream.get("run_in_parallel") for stream in catalog):
        document["concurrency"] = 1
    else:
        notes.append("run_in_parallel of single streams: `concurrency` says here how many streams run at once")
    document |= {"source": source.document}
    document |= {"transformers": transformers} if transformers else {}
    document |= {"destination": {**destination.document, **naming}, "streams": streams}
    document |= {"callbacks": callbacks} if callbacks else {}
    notes += leftovers(f"pipeline {name}", read, _READ)
    notes += [_MAGE_COLUMNS, *_TABLES.get(destination.kind, ())]
    return MagePipeline(
        file=file,
        text=_text(f"Mage's pipeline {name}", document, [*crontab, *(f"Check: {note}" for note in notes)]),
        copies=(*changed, *called),
        notes=tuple(notes),
        adoptions=adoptions,
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


#: A stream of Mage's catalog, and its entry in the pipeline file.
_Chosen = Sequence[tuple[Mapping[str, Any], dict[str, Any]]]


def _selected(
    streams: Sequence[Mapping[str, Any]], source: MageConnection, destination: MageConnection, notes: list[str]
) -> _Chosen:
    """Return the streams that Mage selects."""
    chosen, left_out = [], []
    for stream in streams:
        entry = entry_of(stream, source, destination, alone=len(streams) == 1, notes=notes)
        if entry is None:
            left_out.append(stream_id(stream))
        else:
            chosen.append((stream, entry))
    if left_out:
        notes.append(f"streams that are not selected in Mage are left out: {', '.join(left_out)}")
    if not chosen:
        notes.append("the catalog selects no stream: name them under `streams`")
    return chosen


def _adoptions(
    project: Project, name: str, file: str, destination: MageConnection, chosen: _Chosen, notes: list[str]
) -> Iterator[str]:
    """Yield the command for each table that goes on as it is."""
    for stream, entry in chosen:
        if entry["write_disposition"] != "replace":
            found = bookmark_of(project, name, destination, stream, entry, notes)
            yield shlex.join(["syncblocks", "state", "adopt", file, entry["stream"], *found])


def _text(what: str, document: Mapping[str, Any], comments: Sequence[str]) -> str:
    lines = [f"Written by `syncblocks init --from-mage`: {what}.", *comments]
    head = "".join(f"# {line}\n" for comment in lines for line in comment.splitlines())
    return head + yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)


__all__ = ["MagePipeline", "read_mage"]
