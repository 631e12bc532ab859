"""How a pipeline run ended, for the command line and the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, overload

from syncblocks.connectors.incremental.bookmarks import BOUNDARY

from ..errors import PipelineFailed, nearest_match
from ..text_width import beginning, text_width


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """How one stream ended."""

    stream: str
    destination_table: str
    #: success, failure, cancelled; None: never started, or still open because ledger or run store was unreachable.
    status: str | None
    records: int | None = None
    #: Rejected records that are kept beside the table (`on_rejected: keep`).
    records_rejected: int | None = None
    #: Records missing in the source: deleted, marked or ended (`deletes`); None: not checked.
    records_deleted: int | None = None
    #: Records that another record of the same commit replaced, because both have the same key (merge). `None` if they
    #: were not counted.
    records_replaced: int | None = None
    #: Numbers of lines in the connector's log while it read the stream: `warn`, `error`. `None` if there were none, or
    #: if the connector has no such log.
    warnings: Mapping[str, int] | None = None
    size_bytes: int | None = None
    duration_s: float | None = None
    bookmark: Mapping[str, Any] | None = None
    error: str | None = None
    #: A retry may succeed: `retries` repeats such a stream.
    is_retriable: bool = False
    #: With `verify: true`: verdict of the comparison after the run, see `verification`; None: not compared.
    verdict: str | None = None

    @property
    def rows(self) -> int | None:
        """The records, under the callbacks' name (`block_run.rows`)."""
        return self.records

    @property
    def is_unequal(self) -> bool:
        """Whether the comparison after the run found a difference, or failed."""
        return self.verdict in ("differs", "failed")

    def raise_for_status(self) -> StreamResult:
        """Return the result itself if the stream ended as success without a difference.

        Raises:
            PipelineFailed: otherwise.
        """
        if self.status == "success" and not self.is_unequal:
            return self
        what = f"verified: {self.verdict}" if self.is_unequal else self.status or "not started"
        raise PipelineFailed(f"stream {self.stream!r}: {what}" + (f": {self.error}" if self.error else ""))


class StreamResults(tuple[StreamResult, ...]):
    """The streams of a run in the order of their start; `streams["orders"]` is one of them."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> StreamResult: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[StreamResult, ...]: ...
    def __getitem__(self, key: SupportsIndex | slice | str) -> StreamResult | tuple[StreamResult, ...]:
        if not isinstance(key, str):
            return super().__getitem__(key)
        for stream in self:
            if stream.stream == key:
                return stream
        near = nearest_match(key, [stream.stream for stream in self])
        raise KeyError(f"no stream {key!r} was started" + ("" if near is None else f"; did you mean {near!r}?"))

    def __contains__(self, key: object) -> bool:
        return any(stream.stream == key for stream in self) if isinstance(key, str) else super().__contains__(key)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunResult:
    """How a pipeline run ended; shown as a table of its streams."""

    run_id: int | None
    pipeline: str
    status: str
    streams: StreamResults = StreamResults()  # noqa: RUF009 (it cannot be changed)
    #: Streams that did not start before the run was stopped.
    never_started: tuple[str, ...] = ()
    #: Streams that were synced before and that the source no longer offers.
    missing_streams: tuple[str, ...] = ()
    #: Callback deliveries by state, of this run and of the run that it recovered.
    callbacks: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    #: Number of the signal that stopped the run.
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """Exit code: 0 done, 1 a stream did not succeed or differs, 3 a callback is due or dead, 128 + signal."""
        if self.signal is not None:
            return 128 + self.signal
        if self.status != "success" or any(stream.is_unequal for stream in self.streams):
            return 1
        return 3 if self.callbacks.get("dead") or self.callbacks.get("due") else 0

    def raise_for_status(self) -> RunResult:
        """Return the result itself if the run ended as success and no stream differs.

        Raises:
            PipelineFailed: the run did not succeed; the message names the streams and their errors.
        """
        unequal = [f"{stream.stream}: {stream.verdict}" for stream in self.streams if stream.is_unequal]
        if self.status == "success" and not unequal:
            return self
        reasons = [f"{stream.stream}: {stream.error}" for stream in self.streams if stream.error]
        shown = "; ".join(reasons) or self.error or "; ".join(unequal) or "no stream was started"
        what = "did not arrive as it is in the source" if self.status == "success" else f"ended as {self.status}"
        raise PipelineFailed(f"pipeline {self.pipeline!r} {what}: {shown}")

    def __repr__(self) -> str:
        """Return a line about the run, and a table of its streams."""
        rows = [_COLUMNS, *map(_cells, self.streams)]
        widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(_padded, row, widths)).rstrip() for row in rows]
        return "\n".join([self._headline, *(lines if self.streams else ())])

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        import html

        rows = [
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(each))}</tr>" for each in self.streams
        ]
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
        return f"<p>{html.escape(self._headline)}</p>{table}"

    @property
    def _headline(self) -> str:
        run = "no run" if self.run_id is None else f"run {self.run_id}"
        left = f", {len(self.never_started)} not started" if self.never_started else ""
        error = f": {_cell(self.error)}" if self.error else ""
        return f"{_cell(self.pipeline)}: {run}: {self.status}{left}{error}"


#: Columns of the table that shows a result.
_COLUMNS = ("stream", "destination table", "status", "records", "rejected", "time", "bookmark", "error")
#: Maximum width of a cell in terminal columns.
_MAX_CELL = 80


def _cells(stream: StreamResult) -> tuple[str, ...]:
    bookmark = {name: value for name, value in (stream.bookmark or {}).items() if name != BOUNDARY}
    return (
        _cell(stream.stream),
        _cell(stream.destination_table),
        stream.status or "not ended",
        "" if stream.records is None else f"{stream.records:,}",
        f"{stream.records_rejected:,}" if stream.records_rejected else "",
        "" if stream.duration_s is None else f"{stream.duration_s:.1f} s",
        _cell(" ".join(f"{name}={value}" for name, value in bookmark.items())),
        _cell(stream.error or ""),
    )


def _cell(text: str) -> str:
    """Return one line without control characters, which database names may contain."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if text_width(line) <= _MAX_CELL else f"{beginning(line, _MAX_CELL - 1)}…"


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - text_width(cell))
