"""Checks of a plan: streams must not overwrite each other's tables or their own source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from unicodedata import category

from syncblocks.connectors.arrow.batch_validation import repeated_name
from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.protocols import Capability, Destination, Source
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import FILE_MODIFIED, VALID_FROM, VALID_TO, Stream, TableState
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition

from ..config import Pipeline, exact_name
from ..delivery.subscriptions import UserCode
from ..errors import ConfigError, Mistake, nearest_match
from .foreign_key_order import cycle_of
from .policy import Configured
from .selected_stream import OfSource, SelectedStream
from .stream_transformers import transformers_of
from .worker_plan import WorkerPlan, writers_of

#: Write dispositions of which a table has one stream only, and what they would do to what others have written there.
_ALONE = {
    WriteDisposition.REPLACE: "drop",
    WriteDisposition.REPLACE_RANGE: "delete records of",
    WriteDisposition.HISTORY: "end versions in",
}


#: Most characters of a pipeline name.
MOST_NAME = 200

#: Characters that change the direction of the text around them.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class SharedTable(ConfigError):
    """Several streams would write a table, and one of them allows no other stream there."""


class NamedTable(SharedTable, Mistake):
    """The pipeline file names all of these streams, or the command makes it so."""


def check_name(pipeline: Pipeline, tables: Iterable[TableState], *, is_known: bool) -> tuple[str, ...]:
    """Refuse a pipeline name that pages, paths and logs cannot show. Return a warning if the name is in use.

    Args:
        pipeline: the pipeline file.
        tables: the states of its tables, with their ledger rows.
        is_known: true if the run store has bookmarks of the pipeline.

    Raises:
        ConfigError: the name is wrong, and no ledger row has it.
    """
    why = _wrong_name(pipeline.pipeline)
    if not why:
        return ()
    if is_known or any(row.key.pipeline == pipeline.pipeline for table in tables for row in table.ledger):
        return (f"the name of the pipeline {why}. The pipeline keeps it, because its ledger rows have this name",)
    raise pipeline.error(("pipeline",), f"{why}. Set another name", kind=Mistake)


def _wrong_name(name: str) -> str:
    """Return what is wrong with a pipeline name as a clause, or an empty text if the name is valid."""
    if name in (".", ".."):
        return f"is {name!r}, which means a folder in addresses of pages and of the API"
    if len(name) > MOST_NAME:
        return f"has {len(name)} characters, and at most {MOST_NAME} are allowed"
    char = next((each for each in name if category(each) in ("Cc", "Zl", "Zp") or each in _DIRECTIONS), "")
    return f"has the character U+{ord(char):04X}, which controls how a text is shown" if char else ""


def nameable(
    pipeline: Pipeline, selected: Sequence[SelectedStream], can: Capabilities
) -> tuple[tuple[SelectedStream, ...], tuple[str, ...]]:
    """Leave out the streams whose table has no name in the destination, with a warning each.

    A stranger's table in the source must not keep all others from being synced.

    Raises:
        ConfigError: the file names such a stream, or there is no other.
    """
    kept: list[SelectedStream] = []
    texts: list[str] = []
    for stream in selected:
        try:
            if can.names_tables is not None:
                can.names_tables.one_name(stream.destination_table)
            kept.append(stream)
        except FatalConnectorError as error:
            entry = pipeline.streams[int(stream.policy.location[1])]
            is_last = stream is selected[-1] and not kept
            if is_last or exact_name(entry.stream) is not None:
                raise stream_error(pipeline, stream, str(error)) from error
            texts.append(f"stream {stream.name!r} is skipped: {error}")
    return tuple(kept), tuple(texts)


def check_added(pipeline: Pipeline, stream: SelectedStream, declared: Stream, can: Capabilities) -> None:
    """Refuse columns of `add_columns` that the stream has, or that the destination cannot keep.

    Args:
        pipeline: the pipeline file.
        stream: the selected stream.
        declared: as it arrives, but for what transformers' functions do.
        can: capabilities of the destination.

    Raises:
        ConfigError: see above.
    """
    if taken := stream.policy.added.taken(declared.schema.names):
        key = "write_disposition: history" if taken in (VALID_FROM, VALID_TO) else "add_columns"
        text = f"{key}: the stream has a column {taken!r}: give it another name"
        raise stream_error(pipeline, stream, text, OfSource)
    own = [column.field.name for column in stream.policy.added.columns]
    if stream.policy.added.history is not None and (taken := stream.policy.added.history.taken(own)):
        text = f"add_columns: a history has a column {taken!r}: give it another name"
        raise stream_error(pipeline, stream, text, Mistake)
    is_merged = stream.write.disposition is WriteDisposition.MERGE
    if stream.policy.added.kept and is_merged and Capability.KEEPS_FIRST not in can:
        what = (
            f"{pipeline.destination.connector} cannot leave column {stream.policy.added.kept[0]!r} of a record as it is"
        )
        text = f"add_columns: {what} when it updates others: leave out `on_update: keep`"
        raise stream_error(pipeline, stream, text, Mistake)


def check_nested(pipeline: Pipeline, stream: SelectedStream) -> None:
    """Refuse a struct with two fields of one name: no value of it can be told apart, written as JSON or looked up.

    Raises:
        ConfigError: names the column and the field.
    """
    masks = stream.stream.read.masks
    for field in stream.stream.schema:
        if name := repeated_name(field.type if masks is None else masks.fields.get(field.name, field).type):
            text = (
                f"column {field.name!r} holds structs with two fields {name!r}, of which none can be found by its "
                "name: leave the column out by `columns: {exclude: [...]}`, or rename a field in the source"
            )
            raise stream_error(pipeline, stream, text, OfSource)


def shared_tables(
    pipeline: Pipeline,
    selected: Sequence[SelectedStream],
    tables: Mapping[str, TableState],
    can: Capabilities,
    *,
    full_refresh: bool,
) -> dict[str, ConfigError]:
    """Return why streams must not replace a table, or a range of it, or keep a history there: another one writes it.

    Streams of append and merge may share a table.
    """
    found: dict[str, ConfigError] = {}

    def one_name(table: str) -> str:
        return table if can.names_tables is None else can.names_tables.one_name(table)

    def is_alone(stream: SelectedStream) -> bool:
        return full_refresh or stream.write.disposition in _ALONE

    by_table: dict[str, list[SelectedStream]] = {}
    for stream in selected:
        by_table.setdefault(one_name(stream.destination_table), []).append(stream)
    for stream in selected:
        others = by_table[one_name(stream.destination_table)]
        if len(others) > 1 and any(map(is_alone, others)):
            names = ", ".join(repr(other.name) for other in others)
            tables_named = " and ".join(dict.fromkeys(repr(other.destination_table) for other in others))
            is_one = (
                "" if len({other.destination_table for other in others}) == 1 else ", one table to this destination,"
            )
            found[stream.name] = stream_error(
                pipeline,
                stream,
                f"table {tables_named}{is_one} is written by {names}: {_advice(others)}",
                NamedTable if full_refresh or all(is_named(pipeline, each) for each in others) else SharedTable,
            )
        if stream.name in found or not is_alone(stream):
            continue
        for row in tables[stream.destination_table].ledger:
            is_other = (row.key.pipeline, row.key.stream) != (pipeline.pipeline, stream.name)
            if is_other and row.committed_at is not None:
                is_asked = stream.write.disposition in _ALONE
                does = "drop" if full_refresh else _ALONE[stream.write.disposition]
                what = f"`{stream.write.disposition}`" if is_asked else "--full-refresh"
                advice = stream.policy.ways.another_table if is_asked else _START_OVER
                if row.key.pipeline != pipeline.pipeline and row.key.stream == stream.name:
                    advice += f"; if the pipeline was only renamed, keep its ledger by `pipeline: {row.key.pipeline}`"
                found[stream.name] = stream_error(
                    pipeline,
                    stream,
                    f"{what} would {does} table "
                    f"{stream.destination_table!r}, which stream {row.key.stream!r} of "
                    f"pipeline {row.key.pipeline!r} writes too: {advice}; if that stream no longer exists, drop its "
                    "state with `syncblocks state reset --forget`",
                    ConfigError if is_asked else Mistake,
                )
                break
    return found


def check_cycle(pipeline: Pipeline, stream: SelectedStream, parents: Mapping[str, Sequence[str]]) -> None:
    """Refuse `deletes: hard` in a cycle of foreign keys: each table loses its records in a transaction of its own.

    Raises:
        ConfigError: names the streams of the cycle.
    """
    if cycle := cycle_of(stream.name, parents):
        raise stream_error(
            pipeline,
            stream,
            f"`deletes: hard` deletes children before their parents, and foreign keys of the tables of "
            f"{', '.join(map(repr, cycle))} form a cycle, and each stream commits on its own: say "
            "`deletes: soft`, or drop one of the keys",
        )


def sharing_streams(
    selected: Sequence[SelectedStream], can: Capabilities, part: WorkerPlan | None = None
) -> dict[str, list[str]]:
    """Return for each stream the others of this run that write its table.

    Args:
        selected: the streams.
        can: capabilities of the destination.
        part: of the plan of which they are a part; None: they are all.
    """
    names = can.names_tables
    tables = {stream.name: stream.destination_table for stream in selected}
    if names is not None:
        tables = {name: names.one_name(table) for name, table in tables.items()}
    writers = writers_of(tables) if part is None else part.writers
    return {name: [other for other in writers.get(table, ()) if other != name] for name, table in tables.items()}


#: How to read all streams of a table again: a stream without a table starts from scratch.
_START_OVER = "to read all of its streams again, drop the table by hand and run without --full-refresh"


def _advice(others: Sequence[SelectedStream]) -> str:
    if any(other.write.disposition in _ALONE for other in others):
        return "give each its own `destination_table`, or write all of them with append or merge"
    return f"with --full-refresh each would replace the other's records; {_START_OVER}"


def check_renames(
    pipeline: Pipeline,
    selected: Sequence[SelectedStream],
    code: UserCode,
    refuse: Callable[[Collection[str], ConfigError], None],
) -> None:
    """Refuse the streams of a transformer that renames a column which none of them has.

    After a function, any column may exist: its streams are not checked any more.
    """
    names = {stream.name: list(stream.stream.schema.names) for stream in selected}
    blocks = {stream.name: [block.block for block in transformers_of(pipeline, stream)] for stream in selected}
    is_open = {stream.name: bool(stream.stream.unreadable) for stream in selected}
    for number, block in enumerate(pipeline.transformers):
        own = [name for name in names if block.block in blocks[name]]
        known = sorted({column for name in own for column in names[name]})
        renames = code.renames.get(block.block, {})
        for column in renames:
            if own and column not in known and not any(is_open[name] for name in own):
                error = pipeline.error(
                    ("transformers", number, *(("rename", column) if block.rename else ("file",))),
                    f"no stream of block {block.block!r} has a column {column!r}",
                    allowed=tuple(known),
                    nearest=nearest_match(column, known),
                )
                refuse(own, error)
        for name in own:
            names[name] = [renames.get(column, column) for column in names[name]]
            is_open[name] |= bool(code.transformers[block.block])


def check_own_source(
    pipeline: Pipeline, stream: SelectedStream, table: TableState, source: Source, destination: Destination
) -> None:
    """Refuse a stream that would write the table that it reads, also where the source is a file of its folder."""
    place, within = source.identity(), destination.identity().rstrip("/")
    is_there = place == within or place.rpartition("/")[0] == within
    if is_there and table.stream_name == stream.name:
        raise stream_error(
            pipeline,
            stream,
            f"table {stream.destination_table!r} is its own destination: {stream.policy.ways.another_table}",
            Mistake if is_named(pipeline, stream) else ConfigError,
        )


def check_tracked(pipeline: Pipeline, stream: SelectedStream, can: Capabilities) -> None:
    """Refuse `bookmark_properties: [_file_modified]` if the destination cannot keep which files were read."""
    if stream.stream.read.tracks_files and can.keeps_files is None:
        raise stream_error(
            pipeline,
            stream,
            f"`bookmark_properties: [{FILE_MODIFIED}]` needs a destination that keeps which files were read, together "
            f"with their records; {pipeline.destination.connector} does not",
            Mistake,
        )


def check_ranges(pipeline: Pipeline, stream: SelectedStream, can: Capabilities) -> None:
    """Refuse `write_disposition: replace_range` if the destination cannot delete a range."""
    if stream.write.written_range is not None and Capability.REPLACES_RANGES not in can:
        raise stream_error(
            pipeline,
            stream,
            "`write_disposition: replace_range` needs a destination that deletes a range in the transaction of its "
            f"records; {pipeline.destination.connector} does not",
            Mistake,
        )


def check_unique(pipeline: Pipeline, stream: SelectedStream, can: Capabilities, *, full_refresh: bool) -> None:
    """Refuse `unique_constraints` where the destination cannot merge by them, or a full refresh would lose them."""
    if not stream.stream.unique_properties:
        return
    if Capability.MERGES_BY_UNIQUE not in can:
        text = f"{pipeline.destination.connector} merges by `key_properties` only: leave out `unique_constraints`"
        raise stream_error(pipeline, stream, text, Mistake)
    if full_refresh:
        text = (
            "`unique_constraints` and --full-refresh exclude each other, since the new table would not have them; drop "
            f"table {stream.destination_table!r} by hand, and a run without --full-refresh makes it anew"
        )
        raise stream_error(pipeline, stream, text, Mistake)


def check_rejected(pipeline: Pipeline, stream: SelectedStream, can: Capabilities) -> None:
    """Refuse `on_rejected: keep` if the destination cannot keep rejected records."""
    if stream.write.max_rejected is not None and can.keeps_rejected is None:
        raise stream_error(
            pipeline,
            stream,
            f"`on_rejected: keep` needs a destination that keeps rejected records in a table of its own; "
            f"{pipeline.destination.connector} does not",
            Mistake,
        )


def check_least(pipeline: Pipeline, stream: SelectedStream, *, has_ledger: bool) -> None:
    """Refuse `min_records` if the destination writes records as they come: it has no commit that could be left out."""
    if stream.policy.min_records is not None and not has_ledger:
        raise stream_error(
            pipeline,
            stream,
            f"`min_records` needs a destination that writes nothing before its commit; "
            f"{pipeline.destination.connector} writes records as they come",
            Mistake,
        )


def rejected_warnings(pipeline: Pipeline, selected: Sequence[SelectedStream], can: Capabilities) -> list[str]:
    """Return the destination's warning about rejected records, if a stream keeps them."""
    if can.keeps_rejected is None or all(stream.write.max_rejected is None for stream in selected):
        return []
    found = can.keeps_rejected.keeps_rejected()
    return [f"`on_rejected: keep` with {pipeline.destination.connector}: {found}"] if found else []


def check_updates_only(
    pipeline: Pipeline, stream: SelectedStream, table: TableState, can: Capabilities, *, full_refresh: bool
) -> None:
    """Refuse a merge that only updates where it would insert, or has nothing to update.

    Raises:
        ConfigError: see above.
    """
    if stream.write.conflict_method is not ConflictMethod.UPDATE_ONLY:
        return
    why, name = "", stream.destination_table
    kind: type[ConfigError] = Mistake
    if Capability.UPDATES_ONLY not in can:
        why = f"needs a destination with this kind of merge; {pipeline.destination.connector} does not"
    elif full_refresh:
        why = "and --full-refresh exclude each other: the new table would have all records"
    elif table.is_described and table.schema is None:
        why = f"only updates existing records, and there is no table {name!r}: write it by another stream first"
        kind = ConfigError
    if why:
        raise stream_error(pipeline, stream, f"`unique_conflict_method: UPDATE_ONLY` {why}", kind)


def forgetting_warnings(selected: Sequence[SelectedStream], can: Capabilities) -> list[str]:
    """Return the destination's warning if it forgets what earlier runs wrote, and a stream reads only what is new."""
    names = [each.name for each in selected if each.stream.read.method is ReplicationMethod.INCREMENTAL]
    if can.forgets_runs is None or not names:
        return []
    found = can.forgets_runs.forgets_runs()
    return [f"INCREMENTAL ({', '.join(names)}): {found}"] if found else []


class Unplannable(ConfigError):
    """Source or destination cannot serve a stream; with `allow_blocks_to_fail` only that stream fails."""


def server_warnings(pipeline: Pipeline, source: Capabilities, destination: Capabilities) -> list[str]:
    """Return a warning for each end whose server is not verified, and for such a cluster."""
    ends = ((pipeline.source, source), (pipeline.destination, destination))
    found = ((end, can.verifies_server.unverified_server()) for end, can in ends if can.verifies_server is not None)
    warnings = [f"{end.block} ({end.connector}): {warning}" for end, warning in found if warning]
    dask = pipeline.executor.dask or ""
    if dask.startswith(("tcp://", "ws://")):
        warnings.append(
            f"executor: {dask} has no certificates: whoever reaches the scheduler or a worker runs code there and "
            "reads the workers' secrets; use tls:// with `security`"
        )
    return warnings


def is_named(pipeline: Pipeline, stream: SelectedStream) -> bool:
    """Tell whether the last entry of a stream names it, and no glob has found it."""
    return exact_name(pipeline.streams[int(stream.policy.location[1])].stream) is not None


def stream_error(
    pipeline: Pipeline, stream: Configured, message: str, kind: type[ConfigError] = ConfigError
) -> ConfigError:
    """Return an error about a stream, with the place of its entry in the pipeline file."""
    return pipeline.error(stream.policy.location, f"stream {stream.name!r}: {message}", kind=kind)
