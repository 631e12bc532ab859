"""State of streams that read new files: forget some files, so that the next run reads them again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from syncblocks.connectors.stream import FILE_MODIFIED, FileRead

from ..config import glob_matches
from ..errors import ConfigError
from ..plan.policy import Configured
from ..session.session import PipelineSession
from ..store import Store
from .stream_state import key_of, refuse_while_running


def forget_files(
    session: PipelineSession, store: Store | None, selected: Configured, *, since: str = "", glob: str = ""
) -> tuple[FileRead, ...]:
    """Forget the files that match and were last written at or after a time; return them.

    Args:
        session: the opened pipeline.
        store: the run store, if there is one.
        selected: a stream that `tracks_files`.
        since: an ISO time, in UTC if it has no zone; empty: any.
        glob: over paths, where `*` stands for folders too; empty: all.

    Raises:
        ConfigError: the time is none, or no file that was read matches.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    keeps = session.destination_can.keeps_files
    assert keeps is not None, "the plan checks this"
    least, key = _moment(since), key_of(session, selected)
    read = keeps.files_read(key)
    chosen = [each for each in read if each.modified >= least and (not glob or glob_matches(glob, each.path))]
    if not chosen:
        raise ConfigError(
            f"stream {selected.name!r} has read no such file ({len(read)} files are known); nothing was forgotten",
            key="--files" if glob else "--to",
        )
    keeps.forget_files(key, [each.path for each in chosen])
    return tuple(chosen)


def time_of(texts: Mapping[str, str]) -> str:
    """Return the time in `COLUMN=VALUE`, of which the column is `_file_modified`."""
    if set(texts) != {FILE_MODIFIED}:
        raise ConfigError(f"say {FILE_MODIFIED}=TIME, or the time alone", key="--to")
    return texts[FILE_MODIFIED]


def _moment(text: str) -> str:
    """Return a time as `FileRead.modified` has it."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time: write it like 2024-01-31 or 2024-01-31T23:59:00", key="--to") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")
