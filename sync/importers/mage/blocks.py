"""Transformers and callbacks of a Mage pipeline, and their files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from .functions import IN_CALLBACKS, IN_TRANSFORMERS, different_counts
from .project import Project, entries_of, names_of, parts_of
from .values import value_of

_FOLDERS = {
    "data_loader": "data_loaders",
    "data_exporter": "data_exporters",
    "transformer": "transformers",
    "callback": "callbacks",
    "conditional": "conditionals",
}
#: Keys of a block that are brought over, or that say nothing about a run.
BLOCK_KEYS = frozenset(
    (
        "uuid",
        "type",
        "name",
        "language",
        "color",
        "status",
        "upstream_blocks",
        "downstream_blocks",
        "all_upstream_blocks_executed",
        "callback_blocks",
        "configuration",
        "has_callback",
        "content",
        "created_at",
        "updated_at",
        "groups",
    )
)
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([\w.]+)", re.MULTILINE)
#: Modules of Mage that a file can import where Mage is not installed.
_SERVED = ("mage_ai.data_preparation.decorators", "mage_ai.orchestration.triggers.api")
#: Values of a block or a pipeline that are the same as no value.
_DEFAULTS: tuple[Any, ...] = (None, "", False, "local_python")
#: Settings of Mage -> what to look at instead.
_LOOK_AT = {
    "allow_blocks_to_fail": "`allow_blocks_to_fail` of the pipeline",
    "batch_fetch_limit": "`checkpoint_records` of the connector",
    "concurrency_config": "`concurrency`",
    "create_initial_pipeline_run": "`missed` of `schedule`",
    "email_config": "`notify` with a mailto:// URL",
    "executor_type": "`executor`",
    "landing_time_enabled": "`schedule`",
    "max_delay": "`retry_delay_s`",
    "message_templates": "`title` and `message` of the callback block",
    "opsgenie_config": "`notify` with an opsgenie:// URL",
    "pipeline_run_limit": "`--max-runs` of `serve`",
    "sla": "`expect`",
    "subbatch_fetch_limit": "the batch size of the connector",
    "teams_config": "`notify` with a workflows:// or msteams:// URL",
    "telegram_config": "`notify` with a tgram:// URL",
    "timeout": "`run_timeout_s` of the pipeline and `timeout_s` of a stream",
}


class UserFile(Struct, frozen=True, kw_only=True):
    """A file to copy unchanged."""

    #: Path below the project, and below the pipeline file's folder: it leads through no link and no `..`.
    name: str
    path: Path


def block_file(block: Mapping[str, Any]) -> str:
    """Return the path of a block's file in the project."""
    configuration = parts_of(block.get("configuration"))
    said = configuration.get("file_path") or parts_of(configuration.get("file_source")).get("path")
    if said:
        return str(said)
    ending = "yaml" if block.get("language") == "yaml" else "py"
    return f"{_FOLDERS.get(str(block.get('type')), 'custom')}/{block.get('uuid')}.{ending}"


def own_configuration(block: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the `configuration` that the user has given a block."""
    found = {
        str(key): value_of(str(block.get("uuid")), str(key), value, notes)
        for key, value in parts_of(block.get("configuration")).items()
        if key not in ("file_path", "file_source")
    }
    return {"configuration": found} if found else {}


def leftovers(where: str, read: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return a note for each key that is not brought over, but not for a key without a value."""
    return [
        f"{where}: {key!r} is not brought over" + (f": look at {_LOOK_AT[key]}" if key in _LOOK_AT else "")
        for key, value in read.items()
        if key not in known and value not in _DEFAULTS and value not in ([], {})
    ]


def transformers_of(
    project: Project, blocks: Sequence[Mapping[str, Any]], notes: list[str]
) -> tuple[list[dict[str, Any]], list[UserFile]]:
    """Return the transformers of the pipeline file, in order, and their files."""
    made, files = [], []
    for block in blocks:
        kind, uuid = block.get("type"), str(block.get("uuid"))
        if kind in ("data_loader", "data_exporter"):
            continue
        if kind != "transformer":
            notes.append(f"block {uuid} of type {kind} is not brought over")
            continue
        file = _file(project, block_file(block), f"block {uuid}", notes)
        if file is None:
            continue
        notes += leftovers(f"block {uuid}", block, BLOCK_KEYS)
        notes += different_counts(file.name, _text(file), IN_TRANSFORMERS)
        made.append({"block": uuid, "file": file.name, "frames": "record", **own_configuration(block, notes)})
        files.append(file)
    return made, files


def callbacks_of(
    project: Project,
    pipeline: Mapping[str, Any],
    blocks: Sequence[Mapping[str, Any]],
    known: Collection[str],
    notes: list[str],
) -> tuple[list[dict[str, Any]], list[UserFile]]:
    """Return the callback blocks of the pipeline file, and their files; `known`: the parents there are."""
    parents: dict[str, list[str]] = {}
    for block in blocks:
        uuid = str(block.get("uuid"))
        for callback in names_of(block.get("callback_blocks")):
            parents.setdefault(callback, []).append(uuid)
        if block.get("has_callback"):
            parents.setdefault(f"{uuid}_callback", []).append(uuid)
    entries = {str(entry.get("uuid")): entry for entry in entries_of(pipeline.get("callbacks"))}
    for name, entry in entries.items():
        of = [uuid for uuid in names_of(entry.get("upstream_blocks")) if uuid not in parents.get(name, ())]
        parents.setdefault(name, []).extend(of)
        notes += leftovers(f"callback {name}", entry, BLOCK_KEYS)
    made, files = [], []
    for name, on in parents.items():
        file = _file(project, block_file({"type": "callback", "uuid": name, **entries.get(name, {})}), name, notes)
        here = [parent for parent in on if parent in known]
        if here != on or not on:
            gone = ", ".join(parent for parent in on if parent not in known) or "none at all"
            notes.append(f"callback {name}: parents that are not brought over: {gone}")
        if file is not None and here:
            made.append({"block": name, "file": file.name, "on": here})
            notes += different_counts(file.name, _text(file), IN_CALLBACKS)
            files.append(file)
    return made, files


def _file(project: Project, said: str, what: str, notes: list[str]) -> UserFile | None:
    path = project.path(said)
    if path is None or path.suffix != ".py":
        problem = "is not in the project" if path is None else "is no Python file (.py)"
        notes.append(f"{what}: {said} {problem}: it is left out")
        return None
    file = UserFile(name=project.name_of(path), path=path)
    for module in sorted(set(_IMPORT.findall(_text(file)))):
        if module.partition(".")[0] in (project.name, "mage_ai") and module not in _SERVED:
            notes.append(f"{file.name} imports {module}, which is not there outside of Mage: change it by hand")
    return file


def _text(file: UserFile) -> str:
    return file.path.read_text(encoding="utf-8", errors="replace")
