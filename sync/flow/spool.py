"""Spool files: a block's output, kept for its callbacks as one Arrow IPC file. Never partial."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.local_files import make_private_folder
from syncblocks.connectors.stream import RejectedRecord

from ..config import Pipeline
from .rejected import places_of
from .shared_spool import SharedSpool

log = logging.getLogger("syncblocks")


def run_prefix(run_key: str) -> str:
    """Return the prefix of a run's file names: its key, or a hash of a key that could name a folder."""
    if re.fullmatch(r"[0-9A-Za-z]+", run_key):
        return f"{run_key}-"
    return blake2b(run_key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + "-"


def discard_spools(pipeline: Pipeline, run_keys: Iterable[str], *, keep: Collection[str] = ()) -> None:
    """Remove the spool files of ended runs, except those in `keep` that open deliveries need."""
    folder, prefixes = pipeline.spool_folder, tuple(map(run_prefix, run_keys))
    if pipeline.spool_url is not None:
        try:
            SharedSpool(pipeline.spool_url).discard(prefixes, keep=keep)
        except Exception as error:  # drivers raise any error; the data of an ended run remains
            log.warning("data for callbacks of an ended run stays in executor.spool: %s", type(error).__name__)
    # Compared as text: the key comes from the run store, and a glob could match other files.
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(prefixes) and str(path) not in keep:
            path.unlink(missing_ok=True)


class Spool:
    """Writes one block run's batches into an Arrow IPC file, in a separate thread, one batch behind the load.

    It never stops a stream. Over the limit or on a full disk it removes the file and logs a warning; the callback then
    receives None.
    """

    def __init__(self, path: Path, *, limit_bytes: int, label: str) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._label = label
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._pending: Future[None] | None = None
        self._schema: pa.Schema | None = None
        self._writer: Any = None
        self._sink: Any = None
        self._size_bytes = 0
        self._is_given_up = False
        self._is_closed = False
        self._url: str | None = None

    @property
    def kept(self) -> str | None:
        """Path or URL of the file for callbacks; None: it is not kept."""
        return self._url or (str(self.path) if self.path.exists() else None)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append one batch; if its schema is new, rewrite the file under the wider schema."""
        self._wait()
        if self._is_given_up:
            return
        self._size_bytes += batch.nbytes
        if self._size_bytes > self._limit_bytes:
            self.give_up(f"over spool_limit ({self._limit_bytes} bytes)")
            return
        self._pending = self._thread.submit(self._append, batch)

    def close(self, schema: pa.Schema) -> None:
        """Finish the file, unless it was abandoned; idempotent. `schema` is for a stream without batches."""
        self._wait()
        if self._is_given_up or self._is_closed:
            return
        try:
            if self._writer is None:
                self._open(schema)
            self._end()
        except (OSError, pa.ArrowException) as error:
            self.give_up(str(error))
            return
        self._is_closed = True
        self._thread.shutdown()

    def leave_out(self, refused: Sequence[RejectedRecord]) -> None:
        """Remove rejected records from the finished file; abandon it if they are ambiguous."""
        if self._is_given_up or not refused:
            return
        before = self.path.with_suffix(".before")
        try:
            self.path.rename(before)
            with pa.memory_map(str(before)) as mapped:
                reader = pa.ipc.open_file(mapped)
                numbers = range(reader.num_record_batches)
                places = places_of(map(reader.get_batch, numbers), refused)
                if places is None:
                    self.give_up(f"it holds {len(refused)} rejected records that cannot be told from other records")
                    return
                self._is_closed = False
                self._open(reader.schema)
                for number in numbers:
                    batch = reader.get_batch(number)
                    self._writer.write_batch(_without(batch, {row for at, row in places if at == number}))
                self._end()
                self._is_closed = True
        except (OSError, pa.ArrowException) as error:
            self.give_up(str(error))
        finally:
            before.unlink(missing_ok=True)

    def share(self, url: str) -> None:
        """Move the finished file to the object store that all machines share."""
        if self._is_given_up:
            return
        try:
            self._url = SharedSpool(url).put(self.path)
        except Exception as error:  # drivers raise any error, with texts that may contain addresses
            self.give_up(f"it cannot be written to executor.spool: {type(error).__name__}")

    def give_up(self, reason: str) -> None:
        """Remove the file and log why; callbacks get None."""
        self._is_given_up = True
        log.warning("%s: output is not kept for callbacks, they receive None: %s", self._label, reason)
        self.discard()

    def discard(self) -> None:
        """Remove the file of a block that did not succeed, or of a repeated attempt."""
        self._thread.shutdown()
        if self._writer is not None and not self._is_closed:
            try:
                self._end()
            except (OSError, pa.ArrowException) as error:
                log.debug("%s: %s", self._label, error)
            self._writer = None
        self._size_bytes = 0
        self.path.unlink(missing_ok=True)

    def _wait(self) -> None:
        """Wait for the previous batch; abandon the file if it could not be written."""
        if self._pending is None:
            return
        try:
            self._pending.result()
        except (OSError, pa.ArrowException) as error:
            self.give_up(str(error))
        self._pending = None

    def _append(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            self._open(batch.schema)
        elif batch.schema != self._schema:
            self._widen(batch.schema)
        self._writer.write_batch(_conform(batch, self._schema))

    def _open(self, schema: pa.Schema) -> None:
        make_private_folder(self.path.parent)
        self.path.unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        self._schema = schema
        # Opened without truncation: ext4 flushes a truncated file on close, in the writer and in the reader.
        self._sink = pa.OSFile(str(self.path), mode="ab")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def _end(self) -> None:
        try:
            self._writer.close()
        finally:
            self._sink.close()

    def _widen(self, schema: pa.Schema) -> None:
        wider = pa.unify_schemas([self._schema, schema], promote_options="permissive")
        self._end()
        before = self.path.with_suffix(".before")
        self.path.rename(before)
        self._open(wider)
        with pa.memory_map(str(before)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for number in range(reader.num_record_batches):
                self._writer.write_batch(_conform(reader.get_batch(number), wider))
        before.unlink()


def _without(batch: pa.RecordBatch, rows: Collection[int]) -> pa.RecordBatch:
    kept = [row for row in range(batch.num_rows) if row not in rows] if rows else None
    return batch if kept is None else batch.take(pa.array(kept, pa.int64()))


def _conform(batch: pa.RecordBatch, schema: pa.Schema | None) -> pa.RecordBatch:
    if schema is None or batch.schema == schema:
        return batch
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
