"""Where the streams of a pipeline may run: what cannot run on another machine is refused before anything runs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.stream import Place

from ..config import Pipeline
from ..flow.shared_spool import SharedSpool

#: In `plan`: from where both ends are reached.
WORDS: dict[Place, str] = {
    "anywhere": "any worker",
    "host": "workers of this machine",
    "process": "one process",
}


def place_of(source_can: Capabilities, destination_can: Capabilities) -> Place:
    """Return from where both ends of a pipeline are reached."""
    cans = (source_can.knows_place, destination_can.knows_place)
    places = {"process" if can is None else can.place() for can in cans}
    return next(place for place in ("process", "host", "anywhere") if place in places)


def checked_placement(
    pipeline: Pipeline,
    source_can: Capabilities,
    destination_can: Capabilities,
    wanted: Mapping[str, Collection[str]],
    *,
    has_ledger: bool,
) -> str:
    """Return where streams run, if `executor` says that other processes run them; empty: it does not.

    Args:
        pipeline: the pipeline file.
        source_can: capabilities of the source.
        destination_can: capabilities of the destination.
        wanted: stream -> blocks whose data callbacks want.
        has_ledger: whether the destination holds a ledger.

    Raises:
        ConfigError: they cannot; names both settings.
    """
    if not pipeline.executor.is_elsewhere:
        return ""
    _check_store(pipeline)
    _check_secrets(pipeline)
    _check_code(pipeline)
    ends = (
        ("source", pipeline.source.connector, source_can.knows_place),
        ("destination", pipeline.destination.connector, destination_can.knows_place),
    )
    for role, connector, can in ends:
        if can is None or can.place() == "process":
            raise pipeline.error(
                (role, "connector"),
                f"`executor: {{dask: ...}}` runs streams in other processes, and only one process at a time can use "
                f"{connector!r}: take `executor: threads`",
            )
    if not has_ledger:
        raise pipeline.error(
            ("destination", "connector"),
            f"`executor: {{dask: ...}}` needs a destination with a ledger, which refuses the commits of a worker that "
            f"was given up: {pipeline.destination.connector!r} cannot hold one",
        )
    _check_data(pipeline, wanted)
    if any(wanted.values()):
        _check_spool(pipeline)
    return f"{pipeline.executor}, on {WORDS[place_of(source_can, destination_can)]}"


def _check_store(pipeline: Pipeline) -> None:
    if pipeline.store is None or not pipeline.store.startswith("postgresql"):
        said = "is not set, so it is a SQLite file" if pipeline.store is None else "is a SQLite file"
        raise pipeline.error(
            ("store",) if pipeline.store is not None else ("executor",),
            f"`executor: {{dask: ...}}` needs a run store that every worker reaches, and `store` {said}: "
            "write store: postgresql://...",
        )


def _check_secrets(pipeline: Pipeline) -> None:
    """Refuse secrets that stand in the file: the file goes through the scheduler to the workers."""
    for loc in pipeline.written_secrets:
        if loc[0] == "callbacks":  # they stay here
            continue
        raise pipeline.error(
            loc,
            "a secret is written in the file, which `executor: {dask: ...}` sends to the workers: use "
            "{{ secret('x') }} or {{ env_var('X') }}, which each worker looks up for itself",
        )


def _check_code(pipeline: Pipeline) -> None:
    """Refuse files of code outside of the pipeline's folder: only what is in it travels."""
    for place, block in enumerate(pipeline.transformers):
        if block.file is not None and not _is_inside(block.file):
            raise pipeline.error(
                ("transformers", place, "file"),
                "`executor: {dask: ...}` sends code from the pipeline's folder only: put the file below it",
            )
    if pipeline.catalog is not None and not _is_inside(pipeline.catalog):
        raise pipeline.error(("catalog",), "`executor: {dask: ...}` sends files from the pipeline's folder only")


def _is_inside(file: str) -> bool:
    """Tell whether a file's path, relative to the pipeline's folder, stays in it."""
    path = Path(file)
    return not path.is_absolute() and ".." not in path.parts and not file.startswith("~")


def _check_spool(pipeline: Pipeline) -> None:
    """Refuse a URL of which it can be told here that no worker can write to it."""
    url = pipeline.spool_url
    if url is None:
        return
    place = url.partition("://")[2].partition("/")[0]
    if ":" in place.rpartition("@")[0]:
        raise pipeline.error(
            ("executor", "spool"), "holds a password, which all workers would show: give it to them by the environment"
        )
    try:
        SharedSpool(url)
    except ValueError as error:
        raise pipeline.error(("executor", "spool"), str(error)) from error


def _check_data(pipeline: Pipeline, wanted: Mapping[str, Collection[str]]) -> None:
    """Refuse callbacks that want data, unless there is a folder through which the data reaches them."""
    blocks = sorted({block for of_stream in wanted.values() for block in of_stream})
    if blocks and pipeline.executor.spool is None and not pipeline.executor.is_local:
        raise pipeline.error(
            ("executor",),
            f"callbacks want the data of block {blocks[0]!r}, which other machines have: name a folder or URL "
            "that all of them share as `spool`, or give the callbacks `fetch_inputs=False`",
        )
