"""An opened pipeline: its connectors, user code and redactor, and its plan. Writes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import pyarrow as pa
from msgspec import Struct, field

from syncblocks.connectors.capabilities import Capabilities, capabilities_of, shown_address
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from syncblocks.connectors.log_based import GivenUp
from syncblocks.connectors.protocols import Destination, ListsStreams, Source
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.stream import Bookmark, FileRead, LedgerKey, Stream
from syncblocks.connectors.struct_helpers import replace

from ..clock import Clock
from ..config import Pipeline, config_error_from_connector, exact_name, glob_matches
from ..config.nested import flattening_place, nested_levels
from ..delivery.masked_output import masked_output
from ..delivery.subscriptions import UserCode, check_stream_filters, check_stream_names, load_user_code
from ..errors import ConfigError
from ..flow.memory import budget_bytes, connector_bytes, record_bytes
from ..plan.features.log_based import look_at_log, overdue_log, refuse_apart, with_unlogged, without_positions
from ..plan.features.replace_range import demand_interval
from ..plan.plan import MAX_SAID, Connectors, Missing, Plan, missing_warnings
from ..plan.planning import plan_streams, refuse_undecided
from ..plan.refusals import check_name, check_renames, nameable
from ..plan.replace_existing import without_existing
from ..plan.run_options import NO_OPTIONS, RunOptions
from ..plan.selection import (
    NoStream,
    NoSuchStream,
    Refusals,
    Selection,
    emptied_tables,
    former_tables,
    gone_streams,
    select_names,
    select_streams,
    skipped_streams,
    tracked_tables,
    with_columns_of,
    without_absent,
    without_columns,
)
from ..plan.source_marks import place_mark
from ..plan.start import ledger_row, renamed_warnings
from ..plan.worker_plan import WorkerPlan
from ..secrets import Redactor
from ..store import Store
from .missing_streams import look_for_missing
from .statements import check_statements

#: Seconds between two looks at what may end the wait for a catalog.
_POLL_S = 0.1

T = TypeVar("T")


class PipelineSession(Struct, kw_only=True):
    """An opened pipeline. Close it when done."""

    pipeline: Pipeline
    code: UserCode
    source: Source
    #: Connector and place, as ledger and run store keep it: without secrets.
    source_name: str
    source_can: Capabilities
    destination: Destination
    destination_can: Capabilities
    redactor: Redactor
    #: What `plan` says about the source's streams.
    notes: list[str] = field(default_factory=list)
    #: What the last plan has found to be missing, also where it was refused after that; see `Plan`.
    missing: tuple[Missing, ...] = ()
    unreadable: tuple[str, ...] = ()
    #: See `Connectors`.
    read_back: str | None = ""
    #: Tells whether to give up waiting for the source's catalog.
    is_stopping: Callable[[], bool] = lambda: False
    clock: Clock = field(default_factory=Clock)
    #: See `StreamContext`.
    log_until: Bookmark | None = None
    #: What `discover` has found, if it is kept.
    _catalog: Sequence[Stream] | None = None

    @property
    def connectors(self) -> Connectors:
        """Source and destination with their capabilities."""
        return Connectors(
            source=self.source,
            source_name=self.source_name,
            source_can=self.source_can,
            destination=self.destination,
            destination_can=self.destination_can,
            read_back=self.read_back,
        )

    @property
    def source_address(self) -> str:
        """The source's address for output."""
        return self.redactor.redact(shown_address(self.source, self.source_can))

    @property
    def destination_address(self) -> str:
        """The destination's address for output."""
        return self.redactor.redact(shown_address(self.destination, self.destination_can))

    def use_store(self, store: Store | None, run_id: int | None = None) -> None:
        """Keep the state of a destination without a ledger in this store; `run_id`: the run that may change it."""
        if self.destination.has_ledger:
            return
        from .ledgerless import Ledgerless

        if isinstance(self.destination, Ledgerless):
            self.destination.use(store, run_id)

    def prepare(self) -> None:
        """Connect in the background; the first call that needs the connection raises its error."""
        pipeline, both = self.pipeline, (self.source_can.prepares, self.destination_can.prepares)
        is_whole = any(entry.replication_method in (None, "FULL_TABLE") for entry in pipeline.streams)
        shortcuts = {None if one is None else one.shortcut() for one in both}
        shortcut = shortcuts.pop() if len(shortcuts) == 1 and is_whole and not pipeline.transformers else None
        for one in both:
            if one is not None:
                one.prepare(shortcut or "arrow", is_whole=is_whole)

    def parts(self, tables: Mapping[str, str]) -> WorkerPlan | None:
        """Return what workers need to plan some streams again; None: the source is planned as a whole only.

        Args:
            tables: streams of the plan -> their destination tables.
        """
        if self.source_can.lists_streams is not None:
            return None
        return WorkerPlan.of(self.pipeline, tables, self.destination_can.names_tables)

    def discover(self) -> Sequence[Stream]:
        """Ask the source for its catalog, and for what the file's queries yield.

        In a thread: a driver may wait for an answer that never comes.

        Raises:
            ConfigError: its settings or a query are wrong.
            FatalConnectorError: it takes longer than `discovery_timeout_s`.
            Interrupted: the run is to stop.
        """
        if self._catalog is not None:
            return self._catalog
        try:
            found = self._waited(self.source.discover)
        except ConnectorConfigError as error:  # here it is certain that the source raised it
            raise config_error_from_connector(self.pipeline, "source", error) from error
        queries = [self._query_stream(place) for place, entry in enumerate(self.pipeline.streams) if entry.query]
        names = {stream.name for stream in queries}
        return [*(stream for stream in found if stream.name not in names), *queries]

    def select_part(self, part: WorkerPlan, names: Sequence[str]) -> Selection:
        """Ask the source for a few streams of a plan that was made before, and select them.

        Raises:
            ConfigError: its settings or a query are wrong.
        """
        finds = self.source_can.finds_streams
        places = {name: [at for at in part.named.get(name, ()) if self.pipeline.streams[at].query] for name in names}
        queries = [self._query_stream(found[-1]) for found in places.values() if found]
        rest = [name for name in names if not places[name]]
        if finds is not None:
            tables = self._waited(lambda: finds.find_streams(rest)) if rest else ()
        else:
            if self._catalog is None:
                self._catalog = self.discover()
            wanted = set(rest)
            tables = [stream for stream in self._catalog if stream.name in wanted]
        found = [*tables, *queries]
        gone = gone_streams(self.pipeline, [stream.name for stream in found], names)
        return select_names(self.pipeline, [*found, *gone], only=names, part=part)

    def _query_stream(self, place: int) -> Stream:
        entry, can = self.pipeline.streams[place], self.source_can.reads_queries
        if can is None:
            text = f"{self.pipeline.source.connector} does not read queries"
            raise self.pipeline.error(("streams", place, "query"), text)
        try:
            name, query = exact_name(entry.stream) or "", entry.query or ""
            values = {each.name: each.value for each in self.pipeline.query_values(place)}
            return self._waited(lambda: can.query_stream(name, query, values, entry.bookmark_start))
        except FatalConnectorError as error:
            raise self.pipeline.error(("streams", place, "query"), str(error)) from error

    def select(
        self,
        globs: Sequence[str] = (),
        only: Sequence[str] | None = None,
        *,
        tags: Sequence[str] = (),
        is_anew: bool = False,
        is_of_run: bool = True,
        in_turn: bool = False,
    ) -> Selection:
        """Ask the source for its streams and select; open only wanted streams, if the source can list the others.

        Args:
            globs: of `--stream`.
            only: exact names.
            tags: of `--tag`.
            is_anew: streams are read from scratch, whatever was read before.
            is_of_run: False: streams are part of it whatever their `when` says.
            in_turn: streams that the file names and the source does not have fail in their turn.

        Raises:
            ConfigError: the source's settings are wrong, or a pattern matches nothing.
        """
        lists = self.source_can.lists_streams
        if lists is None or any(entry.query for entry in self.pipeline.streams):
            found = self.discover()
            gone = gone_streams(self.pipeline, [stream.name for stream in found]) if in_turn else []
            try:
                return select_names(self.pipeline, [*found, *gone], globs, only, tags, is_of_run=is_of_run)
            except NoStream as error:
                raise self._with_grants(error) from error.__cause__
        try:
            names = self._waited(lists.list_streams)
            if self._goes_on_under_former_names():
                names = self._waited(lists.list_streams)
            away = {stream.name: stream for stream in (gone_streams(self.pipeline, names) if in_turn else ())}
            closed = [*(Stream(name=name, schema=pa.schema([])) for name in names), *away.values()]
            selection = select_names(self.pipeline, closed, globs, only, tags, is_of_run=is_of_run)
            read = self._files_read(selection)
            wanted = [name for name in selection.wanted if name not in away]
            opened = self._waited(lambda: self._open(lists, wanted, {} if is_anew else read))
            offered = {stream.name: stream for stream in opened}
        except ConnectorConfigError as error:
            raise config_error_from_connector(self.pipeline, "source", error) from error
        catalog = tuple(offered.get(stream.name, stream) for stream in closed)
        emptied = self._emptied(replace(selection, catalog=catalog))
        catalog = tuple(emptied.get(stream.name, stream) for stream in catalog)
        return without_absent(self.pipeline, replace(selection, catalog=catalog), read)

    def _with_grants(self, error: NoStream) -> NoStream:
        """Add the grants for tables that the entries match and the source's user may not read."""
        if (lists := self.source_can.lists_unreadable) is not None:
            entries = self.pipeline.streams
            matched = [
                name for name in lists.unreadable_tables() if any(glob_matches(one.stream, name) for one in entries)
            ]
            if matched:
                statements = "; ".join(lists.read_grants(matched[:MAX_SAID]))
                error.message += f". To let the user read them, run `{statements}`"
        return error

    def _emptied(self, selection: Selection) -> dict[str, Stream]:
        """Return the streams of files that have no columns any more, with those of the tables written before."""
        by_name = {stream.name: stream for stream in selection.catalog}
        tables, found = emptied_tables(self.pipeline, selection), {}
        described = self.destination.describe(list({table for table, _ in tables.values()})) if tables else {}
        for name, (table, own) in tables.items():
            key = LedgerKey(pipeline=self.pipeline.pipeline, stream=name, destination_table=table)
            row = ledger_row(described[table], key)
            if row is not None:
                found[name] = with_columns_of(by_name[name], described[table], row, own)
        return found

    def _files_read(self, selection: Selection) -> dict[str, tuple[Sequence[FileRead], Bookmark]]:
        """Return what is known of the streams of which files were read before."""
        can, tracks = self.destination_can.keeps_files, self.source_can.tracks_files
        tables = {} if can is None or tracks is None else tracked_tables(self.pipeline, selection)
        if can is None or not tables:
            return {}
        described, found = self.destination.describe(list(dict.fromkeys(tables.values()))), {}
        for name, table in tables.items():
            key = LedgerKey(pipeline=self.pipeline.pipeline, stream=name, destination_table=table)
            row = ledger_row(described[table], key)
            if row is not None and row.bookmark and described[table].schema is not None:
                found[name] = (can.files_read(key), row.bookmark)
        return found

    def _open(
        self,
        lists: ListsStreams,
        names: Sequence[str],
        read: Mapping[str, tuple[Sequence[FileRead], Bookmark]],
    ) -> list[Stream]:
        """Open streams; of those of which files were read before only the files that are new."""
        tracks = self.source_can.tracks_files
        others = [name for name in names if tracks is None or name not in read]
        opened = list(lists.open_streams(others)) if others else []
        if tracks is not None:
            opened += [tracks.open_tracked(name, *read[name]) for name in names if name in read]
        return opened

    def _goes_on_under_former_names(self) -> bool:
        """Keep the names under which earlier versions wrote ledger rows; return whether there are any."""
        can = self.source_can.has_former_names
        former = {} if can is None else can.former_names()
        if can is None or not former:
            return False
        tables = {table for name in former.values() for table in former_tables(self.pipeline, name)}
        rows = [row.key for table in self.destination.describe(sorted(tables)).values() for row in table.ledger]
        written = {key.stream for key in rows if key.pipeline == self.pipeline.pipeline}
        kept = [name for name, former_name in former.items() if former_name in written]
        can.keep_former_names(kept)
        self.notes[:] = [
            f"stream {former[name]!r} goes on under this name, which has its ledger row; anew it would be {name!r}"
            for name in kept
        ]
        return bool(kept)

    def _waited(self, ask: Callable[[], T]) -> T:
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:  # it is raised where the answer is waited for
                answer.set_exception(error)

        threading.Thread(target=work, name="discovery", daemon=True).start()
        limit_s = self.pipeline.discovery_timeout_s
        end = None if limit_s is None else time.monotonic() + limit_s
        while True:
            wait([answer], _POLL_S)
            if answer.done():
                try:
                    return answer.result()
                except ConnectorError as error:
                    error.is_from_source = True
                    raise
            if self.is_stopping():
                raise Interrupted("discovery was interrupted", connector=self.pipeline.source.connector)
            if end is not None and time.monotonic() > end:
                raise FatalConnectorError(
                    f"the source has not told its streams within {limit_s:g} s (`discovery_timeout_s`)",
                    connector=self.pipeline.source.connector,
                )

    def close(self) -> None:
        """Close every connection to source and destination."""
        for connector in (self.source, self.destination):
            connector.close()


def open_session(pipeline: Pipeline, code: UserCode | None = None) -> PipelineSession:
    """Create the connectors and load the user's files; connects to nothing.

    Args:
        pipeline: the pipeline file.
        code: the user's functions, if they are loaded already.

    Raises:
        ConfigError: settings, callback files or transformer files are wrong.
    """
    pipeline.check_interval()
    code = load_user_code(pipeline) if code is None else code
    source, destination = _make_both(pipeline)
    source_can, destination_can = capabilities_of(source), capabilities_of(destination)
    for can in (source_can, destination_can):
        if can.holds_memory is not None:
            size_bytes = connector_bytes(budget_bytes(pipeline.memory))
            can.holds_memory.limit_memory(size_bytes, is_strict=pipeline.memory is not None)
        if can.bounds_records is not None:
            can.bounds_records.limit_record(record_bytes(budget_bytes(pipeline.memory)))
    _flatten(pipeline, source_can)
    if any(entry.where or entry.range_column or entry.limit for entry in pipeline.streams):
        from ..flow.filtered import FilteredSource

        filtered = FilteredSource(source, source_can)
        source, source_can = filtered, filtered.adapted()
    if any(entry.columns is not None and entry.columns.mask for entry in pipeline.streams):
        from ..flow.masked import MaskedSource  # its kernels take time to load, and few pipelines need them

        hiding = MaskedSource(source, source_can)
        source, source_can = hiding, hiding.adapted()
    if not destination.has_ledger:
        from .ledgerless import Ledgerless

        destination = Ledgerless(destination, pipeline.pipeline)
        destination_can = destination.adapted(destination_can)
    check_statements(pipeline, destination_can)
    return PipelineSession(
        pipeline=pipeline,
        code=code,
        source=source,
        source_name=_without_secrets(source.identity(), Redactor(pipeline.secret_values)),
        source_can=source_can,
        destination=destination,
        destination_can=destination_can,
        redactor=Redactor(pipeline.secret_values),
        read_back=_read_back(pipeline),
    )


def _read_back(pipeline: Pipeline) -> str | None:
    """Return what `Connectors.read_back` says; only `deletes` asks for it."""
    if not any(entry.deletes for entry in pipeline.streams):
        return ""
    from .read_back import checksums_of_destination

    return checksums_of_destination(pipeline)


def _flatten(pipeline: Pipeline, can: Capabilities) -> None:
    """Tell the source whose objects become columns.

    Raises:
        ConfigError: it has no objects.
    """
    place = flattening_place(pipeline)
    if place is None:
        return
    if can.flattens_objects is None:
        text = f"{pipeline.source.connector} yields no objects that could be columns: leave `nested` out"
        raise pipeline.error(place, text)
    can.flattens_objects.flatten(partial(nested_levels, pipeline))


def make_plan(
    session: PipelineSession,
    store: Store | None,
    *,
    streams: Sequence[str] = (),
    tags: Sequence[str] = (),
    options: RunOptions = NO_OPTIONS,
    only: Sequence[str] | None = None,
    is_of_run: bool = True,
    limits_log: bool | None = None,
    part: WorkerPlan | None = None,
) -> Plan:
    """Ask source and destination for their streams and tables, and plan a run; writes nothing.

    Args:
        session: the opened pipeline.
        store: the run store, for bookmarks that the destination may have lost; None if there is none yet.
        streams: globs of `--stream`; empty: all selected streams.
        tags: of `--tag`; empty: all selected streams.
        options: of the run. This function leaves out `bookmarks`, `deletes`, `allow_deletes` and `fills`, which
            `plan_with_options` adds to the plan.
        only: exact names of streams (`runs retry`).
        is_of_run: False: nothing is to be written by it, so that no interval is needed.
        limits_log: whether streams that hold too much of the source's log are given up, as a run does; None: as
            `is_of_run` says. Never in a run up to a given moment, for which the tables have to be there.
        part: of the plan of which `only` are a part (`PipelineSession.parts`); its checks are not repeated.

    Raises:
        ConfigError: something in the pipeline file cannot work.
        ConnectorError: source or destination cannot be reached.
    """
    pipeline = session.pipeline
    session.use_store(store)
    # Of a pipeline that has had a run, what source or destination refuse is a change there.
    in_turn = pipeline.allow_blocks_to_fail and store is not None and store.latest_run(pipeline.pipeline) is not None
    refusals = Refusals(in_turn=in_turn)

    def look(catalog: Sequence[Stream]) -> None:
        session.missing, session.unreadable = look_for_missing(
            pipeline,
            session.connectors,
            catalog,
            known,
            globs=streams,
            tags=tags,
            only=only,
            is_of_run=is_of_run,
        )

    try:
        if part is None:
            known = _known_states(store, pipeline.pipeline)
            try:
                selection = session.select(streams, only, tags=tags, is_anew=options.full_refresh, in_turn=in_turn)
            except NoSuchStream as error:
                if any(glob_matches(error.given, name) for name, _ in known):  # it was synced before
                    raise NoStream(error.message, key=error.key, nearest=error.nearest) from error
                raise
            except NoStream as error:
                look(error.catalog)
                raise
            look(selection.catalog)
        else:
            selection = session.select_part(part, only or ())
            known = _known_states(store, pipeline.pipeline, selection.selected)
        written = {name for name, _ in known}
        selected = select_streams(pipeline, selection, written, refusals)
        skipped = skipped_streams(pipeline, selection, written)
        reasons = {stream.name: without_columns(stream) for stream in selection.catalog if stream.name in skipped}
        names = [name for name in selection.selected if name not in skipped]
        names += [*selection.absent, *selection.left_out]
        if part is None:
            check_stream_filters(pipeline, names)
            check_stream_names(pipeline, names)
        if selection.is_whole:
            check_renames(pipeline, selected, session.code, refusals.refuse)
        selected = tuple(replace(each, stream=refusals.refused(each.stream)) for each in selected)
        selected, unnamed = nameable(pipeline, selected, session.destination_can)
        tables = session.destination.describe(list(dict.fromkeys(stream.destination_table for stream in selected)))
        if part is None:
            unnamed = (*check_name(pipeline, tables.values(), is_known=bool(known)), *unnamed)
        given_up = GivenUp()
        if part is None and session.log_until is None and (is_of_run if limits_log is None else limits_log):
            given_up = overdue_log(pipeline, selected, session.connectors, store)
            tables = without_positions(tables, given_up)
        existing: tuple[str, ...] = ()
        if is_of_run and not options.full_refresh:
            selected, existing = without_existing(pipeline, selected, tables)
        plan = plan_streams(
            pipeline,
            selected,
            tables,
            known,
            session.code,
            connectors=session.connectors,
            options=options._replace(is_late=options.is_late or not (is_of_run and pipeline.is_dated)),
            now=session.clock.now(),
            in_turn=in_turn,
            part=part,
        )
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, role_of(pipeline, error), error) from error
    if is_of_run and not options.full_refresh:
        demand_interval(pipeline, selected)
    refuse_undecided(pipeline, plan)
    if part is None:
        with _placed_source_errors(pipeline):
            of_log = look_at_log(pipeline, plan.streams, session.connectors, given_up)
        planned, unlogged = with_unlogged(plan.streams, of_log)
        plan, of_log = replace(plan, streams=planned), replace(of_log, warnings=(*of_log.warnings, *unlogged))
    else:
        of_log = refuse_apart(plan.streams)
    if streams or tags or only is not None:
        skipped = ()
    texts = tuple(f"stream {name!r} is skipped: {reasons[name]}" for name in skipped)
    texts += (*unnamed, *existing, *of_log.warnings)
    if selection.is_whole and not options.full_refresh:
        texts += _renamed(session, selection, plan)
    texts += tuple(f"stream {name!r} is skipped: {reason}" for name, reason in selection.absent.items())
    warnings = (
        *plan.warnings,
        *texts,
        *missing_warnings(session.missing),
        *session.unreadable,
        *session.notes,
        *of_log.notes,
    )
    return replace(
        plan,
        skipped=texts,
        left_out=selection.left_out,
        log=of_log,
        given_up=given_up,
        missing=session.missing,
        unreadable=session.unreadable,
        warnings=warnings,
    )


def _renamed(session: PipelineSession, selection: Selection, plan: Plan) -> tuple[str, ...]:
    """Warn of streams that may be former ones under another name."""
    names = {*(stream.name for stream in selection.catalog), *selection.selected}
    source = session.source_name
    found = (
        renamed_warnings(each, each.table, each.key, each.start, source=source, names=names) for each in plan.streams
    )
    return tuple(chain.from_iterable(found))


@contextmanager
def _placed_source_errors(pipeline: Pipeline) -> Iterator[None]:
    """Raise wrong settings of the source as a ConfigError with their place in the file."""
    try:
        yield
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, "source", error) from error


def _make_both(pipeline: Pipeline) -> tuple[Any, Any]:
    """Make source and destination; if both have wrong settings, one error tells of both."""
    made, errors = [], []
    for role in ("source", "destination"):
        try:
            made.append(_make(pipeline, role))
        except ConfigError as error:
            errors.append(error)
    if errors:
        first, *others = (mistake for error in errors for mistake in (error, *error.others))
        first.others = tuple(others)
        raise first
    source, destination = made
    return source, destination


def _make(pipeline: Pipeline, role: str) -> Any:
    block = pipeline.source if role == "source" else pipeline.destination
    make: Callable[..., Any] = make_source if role == "source" else make_destination
    try:
        with masked_output(Redactor(pipeline.secret_values)):  # a class of the user's file may print
            return make(block.connector, block.config, pipeline.folder)
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, role, error) from error


def _without_secrets(identity: str, redactor: Redactor) -> str:
    """Mask the secrets of a place; a hash distinguishes places that differ only in their secrets."""
    masked = redactor.redact(identity)
    if masked == identity:
        return identity
    return f"{masked} {place_mark(identity)}"


def role_of(pipeline: Pipeline, error: ConnectorError) -> str:
    """Return the block, source or destination, whose connector raised an error."""
    is_source = error.connector == pipeline.source.connector and error.connector != pipeline.destination.connector
    return "source" if is_source or error.is_from_source else "destination"


def _known_states(
    store: Store | None, pipeline: str, streams: Sequence[str] | None = None
) -> dict[tuple[str, str], Any]:
    if store is None:
        return {}
    return {(state.stream, state.destination_table): state.shape for state in store.states(pipeline, streams)}
