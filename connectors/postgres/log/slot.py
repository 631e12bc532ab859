"""Slot and publication of a pipeline: what they need, whether they are still what the ledger says, and their making."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from msgspec import Struct

from ...errors import ConnectorConfigError, FatalConnectorError, RetriableError
from ...log_based import UNLOGGED, WHOLE, LogLook, plain_stream, position_of
from ...sql.identifiers import literal, quote
from ...sql.read.planned_columns import altered
from ...stream import LedgerRow, Stream
from ...struct_helpers import replace
from ..failures import connect_failure, failure
from ..settings import LogSettings, PostgresAddress, PostgresSettings
from .columns import TableFacts, noted_columns, read_names, refusals, renamed, unlogged
from .connection import IN_USE, LogConnection, reader_of
from .messages import lsn_text, parse_lsn

#: Seconds that the making of a slot waits for transactions that run.
COPY_WAIT_S = 60.0

#: What the log of a published table has.
_PUBLISHED = "insert, update, delete, truncate"

_NAME = re.compile(r"[a-z0-9_]{1,63}")

_PLACE = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


#: Where the log ends that can be read; of a standby what it has replayed.
_END = """case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
  else pg_catalog.pg_current_wal_flush_lsn() end"""

_SERVER = """select pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('max_replication_slots')::int,
  (select count(*) from pg_catalog.pg_replication_slots)::int,
  r.rolreplication or r.rolsuper or exists (select 1 from pg_catalog.pg_roles m
    where m.rolname = 'rds_replication' and pg_catalog.pg_has_role(m.oid, 'MEMBER')), r.rolname::text,
  pg_catalog.pg_is_in_recovery(), pg_catalog.current_database()::text,
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
  (select s.system_identifier::text from pg_catalog.pg_control_system() s),
  pg_catalog.current_setting('server_version_num')::int
from pg_catalog.pg_roles r where r.rolname = current_user"""

_SLOT = f"""select s.plugin::text, s.database::text, s.wal_status, s.confirmed_flush_lsn::text,
  pg_catalog.pg_wal_lsn_diff({_END}, s.restart_lsn)::bigint, s.active
from pg_catalog.pg_replication_slots s where s.slot_name = %s"""

_PUBLICATION = """select p.oid::bigint, p.puballtables, p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate
from pg_catalog.pg_publication p where p.pubname = %s"""

#: `xmin` tells a publication that has had other operations meanwhile.
_PUBLISHED_TABLES = """select r.prrelid::bigint, r.prqual is null and r.prattrs is null,
  n.nspname::text, c.relname::text, pg_catalog.concat_ws(' ', p.oid, p.xmin, r.oid)
from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
join pg_catalog.pg_class c on c.oid = r.prrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = %s"""

_TABLES = """select c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
  c.relreplident::text, pg_catalog.pg_has_role(c.relowner, 'USAGE'),
  (select x.relname::text from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
    where i.indrelid = c.oid and i.indisprimary and i.indimmediate),
  exists (select 1 from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisreplident),
  (select x.relname::text from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
    where i.indrelid = c.oid and i.indisunique and i.indimmediate and i.indpred is null and i.indexprs is null
      and not exists (select 1 from pg_catalog.unnest(i.indkey) k join pg_catalog.pg_attribute a
        on a.attrelid = c.oid and a.attnum = k where not a.attnotnull) order by 1 limit 1),
  (select pg_catalog.json_agg(pg_catalog.json_build_array(
      a.attname, a.attnum, a.atttypid::bigint, a.atttypmod, a.attgenerated::text,
      a.attstorage <> 'p' and c.reltoastrelid <> 0, case when not a.atthasmissing then a.xmin::text end,
      a.atthasdef or a.attidentity <> '' or a.attnotnull,
      pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) order by a.attnum)::text
    from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  c.relnatts::int, (select pg_catalog.json_agg(k.number order by k.number)::text
    from pg_catalog.pg_index i, pg_catalog.unnest(i.indkey) with ordinality as k(number, place)
    where i.indrelid = c.oid and k.place <= i.indnkeyatts
      and case c.relreplident when 'i' then i.indisreplident else i.indisprimary end),
  exists (select 1 from pg_catalog.pg_inherits h where h.inhparent = c.oid),
  pg_catalog.row_security_active(c.oid), c.relfilenode::bigint
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any(%s::oid[])"""

#: The labels of enums that values of some types contain, directly or in an array, a domain, a composite or a range.
_LABELS = """with recursive t(root, oid) as (select r, r from pg_catalog.unnest(%s::oid[]) r
  union select t.root, part.oid from t join pg_catalog.pg_type y on y.oid = t.oid cross join lateral (
    select y.typbasetype union all select y.typelem
    union all select r.rngsubtype from pg_catalog.pg_range r where y.oid in (r.rngtypid, r.rngmultitypid)
    union all select a.atttypid from pg_catalog.pg_attribute a
      where a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped) part(oid))
select t.root::bigint, e.oid::bigint, e.enumlabel::text
from t join pg_catalog.pg_enum e on e.enumtypid = t.oid order by 1, 2"""

#: Types with lower numbers are part of PostgreSQL, and none of them contains an enum.
_FIRST_USER_TYPE = 16384

_TYPE_TEXT = """with recursive b as (select %s::oid as oid, %s::int as mod, 1 as depth
  union all select d.typbasetype, d.typtypmod, b.depth + 1
  from b join pg_catalog.pg_type d on d.oid = b.oid and d.typtype = 'd')
select pg_catalog.format_type(b.oid, b.mod) from b order by b.depth desc limit 1"""

_RUNNING = """select pg_catalog.string_agg(t.who, ', ') from (
  select 'process ' || a.pid || ' of ' || coalesce(a.usename, '?') || ' since ' || a.xact_start::timestamp(0) as who
  from pg_catalog.pg_stat_activity a where a.backend_xid is not null and a.pid <> pg_catalog.pg_backend_pid()
  union all select 'prepared transaction ' || p.gid from pg_catalog.pg_prepared_xacts p) t"""


_LOCKING = """select pg_catalog.string_agg(distinct 'process ' || a.pid || ' of ' || coalesce(a.usename, '?')
  || ' since ' || coalesce(a.xact_start, a.query_start)::timestamp(0), ', ')
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.granted and l.locktype = 'relation' and l.pid <> pg_catalog.pg_backend_pid()
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and l.mode = any('{ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}')"""


class Names(Struct, frozen=True, kw_only=True):
    """Slot, publication, and whether a ledger says that they are ours."""

    slot: str
    publication: str
    are_noted: bool


class Admin:
    """An ordinary connection, each statement of which is committed at once."""

    def __init__(self, address: PostgresAddress) -> None:
        import psycopg

        self._address = address
        #: Number of a type and modifier -> its name.
        self._type_texts: dict[tuple[int, int], str] = {}
        try:
            self._connection = psycopg.connect(address.uri(), autocommit=True)
        except psycopg.Error as error:
            raise connect_failure(error, address) from None
        self.query("set search_path = ''")
        # Nor does it wait for long behind an `alter table` or `vacuum`.
        self.query(f"set lock_timeout = '{COPY_WAIT_S:g}s'")
        # It is silent while tables are copied.
        for name in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
            self.query(f"set {name} = 0")

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement, and return its rows."""
        import psycopg

        try:
            cursor = self._connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.errors.LockNotAvailable as error:
            holders = self.holders(_LOCKING)
            text = f"{failure(error, self._address)}: sessions with strong locks on tables are {holders}"
            raise RetriableError(text, connector="postgres", has_no_values=True) from None
        except psycopg.Error as error:
            raise failure(error, self._address, is_lost=self._connection.closed) from error

    def holders(self, sql: str) -> str:
        """Return whom `_RUNNING` or `_LOCKING` names."""
        self._connection.rollback()
        ((found,),) = self.query(sql)
        return found or "over by now"

    @property
    def version(self) -> int:
        """The server's, such as 170002."""
        return int(self._connection.info.server_version)

    def type_text(self, type_id: int, modifier: int) -> str:
        """Return the name of a type; of a domain its base type, as which it is read."""
        if (type_id, modifier) not in self._type_texts:
            ((found,),) = self.query(_TYPE_TEXT, type_id, modifier)
            self._type_texts[type_id, modifier] = str(found)
        return self._type_texts[type_id, modifier]

    @property
    def is_standby(self) -> bool:
        """Tell whether the server replays another one's log."""
        return self.query("select pg_catalog.pg_is_in_recovery()") == [(True,)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def oid_of(stream: Stream) -> int:
    """Return the number of a stream's table, as it was when the stream was found."""
    return int(stream.locator.get("places", {}).get("", 0))


def names_of(name: str, rows: Sequence[LedgerRow], settings: PostgresSettings) -> Names:
    """Return what slot and publication are called: as the ledger says, else the settings, else by a default.

    Raises:
        ConnectorConfigError: the settings say others than the ledger, or what no slot can be called.
    """
    said = settings.log or LogSettings()
    found = {(str(row.log["slot"]), str(row.log["publication"])) for row in rows}
    if len(found) > 1:
        shown = ", ".join(sorted(slot for slot, _ in found))
        raise FatalConnectorError(
            f"the ledger names several slots ({shown}): drop all with `syncblocks log drop`", has_no_values=True
        )
    if found:
        ((slot, publication),) = found
        _demand_names(slot, publication)
        if (said.slot or slot, said.publication or publication) != (slot, publication):
            text = f"the ledger says slot {slot!r} and publication {publication!r}: `syncblocks log drop` forgets them"
            raise ConnectorConfigError(text, connector="postgres", key="log")
        return Names(slot=slot, publication=publication, are_noted=True)
    slot, publication = said.slot or name, said.publication or name
    _demand_names(slot, publication)
    return Names(slot=slot, publication=publication, are_noted=False)


def _demand_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            text = f"{name!r} is no name of a slot or publication: at most 63 lower case letters, digits and `_`"
            raise ConnectorConfigError(text, connector="postgres", key="log")


def tables_of(admin: Admin, streams: Sequence[Stream]) -> dict[int, TableFacts]:
    """Look up the tables of streams."""
    return tables_numbered(admin, [oid_of(stream) for stream in streams])


def tables_numbered(admin: Admin, oids: Sequence[int]) -> dict[int, TableFacts]:
    """Look tables up by their numbers; what is not there any more is left out."""
    found = {}
    for row in admin.query(_TABLES, list(oids)) if oids else ():
        oid, schema, name, kind, persistence, identity, is_owned, primary, has_index, unique, *others = row
        columns, last, key, has_children, hides_records, file = others
        listed = json.loads(columns or "[]")
        found[oid] = TableFacts(
            oid=oid,
            name=f"{quote(schema)}.{quote(name)}",
            kind=kind,
            is_permanent=persistence == "p",
            is_owned=is_owned,
            identity=identity,
            primary_key=primary,
            has_identity_index=has_index,
            unique_index=unique,
            columns={column: (place, *kind) for column, place, *kind, generated, _, _, _, _ in listed if not generated},
            large=frozenset(column for column, *_, is_large, _, _, _ in listed if is_large),
            generated={column: place for column, place, *_, generated, _, _, _, _ in listed if generated},
            versions={column: version for column, *_, version, _, _ in listed},
            valued=frozenset(column for column, *_, has_values, _ in listed if has_values),
            unreadable=frozenset(column for column, *_, is_readable in listed if not is_readable),
            file=file,
            labels={},
            last=last,
            key=tuple(json.loads(key or "[]")),
            has_children=has_children,
            hides_records=hides_records,
        )
    types = {kind for table in found.values() for _, kind, _ in table.columns.values() if kind >= _FIRST_USER_TYPE}
    labels: dict[int, dict[int, str]] = {}
    for kind, number, label in admin.query(_LABELS, sorted(types)) if types else ():
        labels.setdefault(kind, {})[number] = label
    return {oid: replace(table, labels=labels) for oid, table in found.items()} if labels else found


def slot_of(admin: Admin, names: Names) -> tuple[Any, ...] | None:
    """Return plugin, database, status, confirmed place and kept bytes of a slot, and whether it is read."""
    return next(iter(admin.query(_SLOT, names.slot)), None)


def look(
    admin: Admin,
    names: Names,
    streams: Sequence[Stream],
    rows: Sequence[LedgerRow],
    limit: LogSettings | None = None,
) -> LogLook:
    """Look at what a read needs; see `ReadsLog.look_at_log`."""
    ((wal_level, most, used, may, role, is_standby, database, may_create, own_system, version),) = admin.query(_SERVER)
    if version < 150000:
        return LogLook(missing=("LOG_BASED needs PostgreSQL 15 or newer",))
    if is_standby and version < 160000:
        return LogLook(missing=("LOG_BASED reads a standby from PostgreSQL 16 on: name the primary",))
    if wrong := [place for place in map(position_of, rows) if place and not _PLACE.fullmatch(place)]:
        return LogLook(
            missing=tuple(f"{each!r} is no place in the log: it is written like 0/16B3748" for each in wrong)
        )
    slot = slot_of(admin, names)
    missing, notes, user = [], [], quote(role)
    if wal_level != "logical":
        text = f"wal_level is {wal_level}: `alter system set wal_level = logical`, then restart the server"
        return LogLook(missing=(text,))
    if not may:
        missing.append(f"the role may not read the log: `alter role {user} replication`")
    # One for the copy of a table, which lasts as long as the copy.
    needed = used + (slot is None) + 1
    if needed > most:
        text = f"{used} of {most} replication slots are in use, two are needed with one spare:"
        missing.append(f"{text} `alter system set max_replication_slots = {needed + 2}`, then restart the server")
    publication = next(iter(admin.query(_PUBLICATION, names.publication)), None)
    if publication is None and not may_create and not is_standby:
        missing.append(f"no publication can be made: `grant create on database {quote(database)} to {user}`")
    missing += _of_source(rows, own_system, database)
    # What a standby reads was published by somebody at the primary.
    missing += _of_names(names, slot, None if is_standby and not names.are_noted else publication, rows)
    missing += _of_places(admin, rows)
    tables = tables_of(admin, streams)
    for stream in streams:
        missing += _of_table(stream, tables.get(oid_of(stream)), user, is_standby=is_standby)
    published = entries(admin, names)
    if is_standby:
        missing += _to_publish(names, publication, tables, published)
    by_stream = {row.key.stream: row for row in rows if position_of(row)}
    warnings, retained = _gone(admin, streams, rows), None
    passed: dict[str, tuple[str, ...]] = {}
    for stream in streams:
        table = tables.get(oid_of(stream))
        if table is not None and table.generated:
            notes.append(f"stream {stream.name!r}: generated columns are not in the log: {', '.join(table.generated)}")
        if row := by_stream.get(stream.name):
            missing += changed(admin, stream, row.log, table, published)
            for name, former in renamed(stream, row.log, table).items() if table is not None else ():
                warnings.append(
                    f"stream {stream.name!r}: column {former!r} is called {name!r} now, where records that do not "
                    f"change have NULL: `syncblocks state reset {stream.name}` copies the table anew"
                )
            if table is not None and (found := unlogged(stream, row.log, table)):
                passed[stream.name] = tuple(found)
    if slot is not None and names.are_noted and slot[4] is not None:
        retained = int(slot[4])
        text = f"slot {names.slot!r} keeps {retained / 1e6:,.1f} MB of log at the source"
        most = None if limit is None or limit.on_retained != "warn" else limit.max_retained_bytes
        if most is not None and retained > most:
            behind = min(positions_of(rows).items(), key=lambda each: each[1], default=("", 0))[0]
            warnings.append(
                f"{text}, more than `max_retained`: run all its streams ({behind!r} is furthest behind), or `log drop`"
            )
        else:
            notes.append(text)
    return LogLook(
        missing=tuple(missing),
        notes=tuple(notes),
        warnings=tuple(warnings),
        unlogged=passed,
        retained_bytes=retained,
    )


def _to_publish(
    names: Names, publication: Any, tables: Mapping[int, TableFacts], published: Mapping[int, tuple[bool, str]]
) -> list[str]:
    """Say what has to be done at the primary of a standby, where nothing can be published."""
    name, is_whole = quote(names.publication), publication is not None and not publication[1] and publication[2]
    is_whole = is_whole and all(is_plain for is_plain, _ in published.values())
    lacking = ", ".join(sorted(table.name for oid, table in tables.items() if not is_whole or oid not in published))
    if not lacking:
        return []
    if is_whole:
        return [f"at the primary: `alter publication {name} add table {lacking}`"]
    former = "" if publication is None else f"drop publication {name}; "
    create = f"create publication {name} for table {lacking} with (publish = {literal(_PUBLISHED)})"
    return [f"at the primary: `{former}{create}`"]


def _gone(admin: Admin, streams: Sequence[Stream], rows: Sequence[LedgerRow]) -> list[str]:
    """Tell of streams that hold the log for nothing."""
    names = {stream.name for stream in streams}
    oids = {row.key.stream: int(row.log["table"]) for row in rows if position_of(row) and row.key.stream not in names}
    there = tables_numbered(admin, list(oids.values()))
    return [
        f"stream {name!r} holds the log, and its table is gone: `syncblocks state reset {name}` lets go of it"
        for name, oid in oids.items()
        if oid not in there
    ]


def clock(admin: Admin) -> float:
    """Return the server's time, in seconds since 1970."""
    ((now,),) = admin.query("select pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())")
    return float(now)


def log_end(admin: Admin, names: Names) -> tuple[int, int]:
    """Return where the log ends on the server's disk, and how many bytes of it our slot keeps."""
    ((end,),) = admin.query(f"select ({_END})::text")
    slot = slot_of(admin, names)
    return parse_lsn(end), 0 if slot is None or slot[4] is None else int(slot[4])


def positions_of(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Return up to where in the log each stream is complete; one that has to be copied is not in it."""
    return {row.key.stream: parse_lsn(position_of(row)) for row in rows if position_of(row)}


def _of_places(admin: Admin, rows: Sequence[LedgerRow]) -> list[str]:
    ((end,),) = admin.query(f"select ({_END})::text")
    return [
        f"stream {stream!r} stands at {lsn_text(place)}, and the server's log ends at {end}: if it was read up to "
        "there, the server was restored: `syncblocks log drop`, then `run --full-refresh`"
        for stream, place in positions_of(rows).items()
        if place > parse_lsn(end)
    ]


def _of_source(rows: Sequence[LedgerRow], system: str, database: str) -> list[str]:
    for row in rows:
        log = row.log
        if (str(log["system"]), str(log["database"])) != (system, database):
            return [
                f"the tables were read from database {log['database']!r} of the server with the system identifier "
                f"{log['system']}, and this is {database!r} of {system}: `syncblocks log drop` there, then "
                "`run --full-refresh`"
            ]
    return []


def _of_names(names: Names, slot: Any, publication: Any, rows: Sequence[LedgerRow]) -> list[str]:
    if not names.are_noted:
        text = "is not ours, as no ledger of this pipeline names it: say another name as `log` of the source's config"
        found = [f"slot {names.slot!r} {text}"] if slot is not None else []
        return found + ([f"publication {names.publication!r} {text}"] if publication is not None else [])
    anew = "`syncblocks log drop`, then `run --full-refresh`"
    positions = positions_of(rows)
    if slot is None:
        return [f"slot {names.slot!r} is gone, and with it the log since the last run: {anew}"] if positions else []
    plugin, _, status, confirmed, *_ = slot
    if plugin != "pgoutput" or status == "lost":
        return [f"slot {names.slot!r} has lost log that is needed ({status}, {plugin}): {anew}"]
    found = [
        f"slot {names.slot!r} stands at {confirmed}, past stream {stream!r} at {lsn_text(position)}, whose changes "
        f"between them are lost: `syncblocks state reset {stream}` copies its table anew"
        for stream, position in positions.items()
        if confirmed and parse_lsn(confirmed) > position
    ]
    if publication is not None and (publication[1] or not publication[2]):
        text = f"set (publish = '{_PUBLISHED}')"
        found.append(f"publication {names.publication!r} does not publish all: `alter publication ... {text}`")
    if publication is None and positions:
        found.append(f"publication {names.publication!r} is gone: {anew}")
    return found


def _of_whole(stream: Stream, table: TableFacts) -> list[str]:
    """Say why the log leaves out values of a stream that needs all of them."""
    if large := [name for name in plain_stream(stream).schema.names if name in table.large]:
        return [
            f"stream {stream.name!r}: functions of transformers, `on_rejected: keep`, and `where` with "
            "`deletes: ignore` need whole records, and the log leaves out large values that do not change "
            f"({', '.join(large)}): `alter table {table.name} replica identity full`"
        ]
    key = {table.columns[name][0] for name in stream.locator.get("key", ()) if name in table.columns}
    if key.issubset(table.key):
        return []
    return [
        f"stream {stream.name!r}: functions of transformers keep the key, which the log does not have: "
        f"`alter table {table.name} replica identity default`"
    ]


def _of_table(stream: Stream, table: TableFacts | None, user: str, *, is_standby: bool) -> list[str]:
    if table is None:
        return [f"stream {stream.name!r}: its table is gone since it was looked up; run again"]
    found = []
    is_identified = table.identity == "f" or (table.identity == "d" and table.primary_key is not None)
    is_identified |= table.identity == "i" and table.has_identity_index
    if not is_identified:
        way = (
            "default"
            if table.primary_key
            else f"using index {quote(table.unique_index)}"
            if table.unique_index
            else "full"
        )
        text = "the log would not say which record is changed, and the server would refuse changes"
        found.append(f"stream {stream.name!r}: {text}: `alter table {table.name} replica identity {way}`")
    if stream.key_properties and table.identity == "i":
        way = f"`alter table {table.name} replica identity default`"
        found.append(f"stream {stream.name!r}: it is merged by its primary key, which the log does not have: {way}")
    if stream.locator.get(WHOLE) and table.identity != "f":
        found += _of_whole(stream, table)
    if table.kind != "r" or not table.is_permanent:
        found.append(f"stream {stream.name!r}: only ordinary, permanent tables are in the log")
    if not is_standby and not table.is_owned:
        found.append(f"stream {stream.name!r}: only its owner publishes it: `alter table {table.name} owner to {user}`")
    if lacking := [quote(name) for name in read_names(stream) if name in table.unreadable]:
        grant = f"grant select ({', '.join(lacking)}) on {table.name} to {user}"
        found.append(f"stream {stream.name!r}: the role may not read all its columns: `{grant}`")
    if table.has_children:
        found.append(f"stream {stream.name!r}: other tables inherit from it, whose changes are not those of its log")
    if table.hides_records:
        unforced = (
            f"Run `alter table {table.name} no force row level security`, or as an" if table.is_owned else "As an"
        )
        found.append(
            f"stream {stream.name!r}: row level security hides records from the role {user}, but the log has all "
            f"records, so the copied table would lack some. {unforced} administrator run `alter role {user} bypassrls`"
        )
    return found


def changed(
    admin: Admin,
    stream: Stream,
    log: Mapping[str, Any],
    table: TableFacts | None,
    published: Mapping[int, tuple[bool, str]],
) -> list[str]:
    """Say what of a table that was copied is not as it was, as far as its changes cannot be read on."""
    if table is None or str(table.oid) != str(log["table"]):
        why = ["its table was made anew"]
    elif table.oid not in published or not published[table.oid][0]:
        why = ["its table is not in the publication any more, or only a part of it is"]
    elif log.get("entry", published[table.oid][1]) != published[table.oid][1]:
        why = ["its table was taken out of the publication and put back, or that one altered: changes may be missing"]
    else:
        why = refusals(stream, log, table, admin.type_text)
    mend = f"`syncblocks state reset {stream.name}` copies it anew"
    return [f"stream {stream.name!r}: {'; '.join(why)}: {mend}"] if why else []


def demand_planned(stream: Stream, table: TableFacts) -> None:
    """Raise if a table has other columns than when its stream was found: values of a new one would be passed over."""
    planned = {name: number for name, number in stream.locator["places"].items() if name}
    now = {**{name: number for name, (number, *_) in table.columns.items()}, **table.generated}
    if changes := sorted(name for name in {*planned, *now} if planned.get(name) != now.get(name)):
        raise altered(stream, [f"column {name!r} was added, dropped or renamed" for name in changes])


def demand_reported(stream: Stream, log: Mapping[str, Any], table: TableFacts) -> None:
    """Raise if values of a table have changed without the log since the plan, because the plan could not report it."""
    if found := [each for each in unlogged(stream, log, table) if each not in stream.locator.get(UNLOGGED, ())]:
        raise altered(stream, found)


def entries(admin: Admin, names: Names) -> dict[int, tuple[bool, str]]:
    """Return for each published table whether all of it is, and which entry of which publication that is."""
    found = admin.query(_PUBLISHED_TABLES, names.publication)
    return {oid: (is_plain, entry) for oid, is_plain, _, _, entry in found}


def noted(names: Names, system: Mapping[str, Any], table: TableFacts) -> dict[str, Any]:
    """Return what the ledger keeps of a stream that is copied."""
    return {
        "slot": names.slot,
        "publication": names.publication,
        "system": system["systemid"],
        "database": system["dbname"],
        "timeline": int(system["timeline"]),
        "table": str(table.oid),
        **noted_columns(table, {}),
    }


def make(
    admin: Admin, connection: LogConnection, names: Names, held: Sequence[TableFacts], copied: Sequence[TableFacts]
) -> None:
    """Make what is missing of slot and publication, and publish exactly these tables."""
    if (slot := slot_of(admin, names)) is None:
        # A standby that is promoted then has it, if that standby is told to.
        is_failover = admin.version >= 170000 and not admin.is_standby
        options = "SNAPSHOT 'nothing', FAILOVER" if is_failover else "SNAPSHOT 'nothing'"
        _made(admin, connection, f"CREATE_REPLICATION_SLOT {quote(names.slot)} LOGICAL pgoutput ({options})")
    elif slot[3] is None:  # what made it was killed, and the server has not noticed yet
        raise _waiting(admin)
    if admin.is_standby:
        return
    publication = quote(names.publication)
    if not admin.query(_PUBLICATION, names.publication):
        admin.query(f"create publication {publication} with (publish = {literal(_PUBLISHED)})")
    published = {
        oid: f"{quote(schema)}.{quote(table)}"
        for oid, _, schema, table, _ in admin.query(_PUBLISHED_TABLES, names.publication)
    }
    wanted = {table.oid: table.name for table in (*held, *copied)}
    for oid, table in published.items():
        # What is copied is published anew: somebody may have given it a filter.
        if oid not in wanted or oid in {each.oid for each in copied}:
            admin.query(f"alter publication {publication} drop table {table}")
            published = {other: name for other, name in published.items() if other != oid}
    for oid, table in wanted.items():
        if oid not in published:
            admin.query(f"alter publication {publication} add table {table}")


@contextmanager
def moment(
    admin: Admin,
    address: PostgresAddress,
    names: Names,
    streams: Sequence[Stream],
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, str]]:
    """Make a slot that lasts as long as the context; yield its consistent point, and the snapshot of that moment."""
    # No lock is held: whoever waited for it would hold up slot or read. The read looks whether a table was altered.
    with closing(LogConnection(address, is_stopped=is_stopped)) as exporting:
        # The server may not have noticed yet that a former run was killed, whose slot has another name. The snapshot
        # lasts until the connection's next command.
        slot = quote(f"{names.slot[:48]}_copy_{secrets.token_hex(4)}")
        create = f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
        (found,) = _made(admin, exporting, create)
        tables = tables_of(admin, streams)
        for stream in streams:
            if facts := tables.get(oid_of(stream)):
                demand_planned(stream, facts)
        yield parse_lsn(str(found["consistent_point"])), str(found["snapshot_name"])


def _made(admin: Admin, connection: LogConnection, sql: str) -> list[dict[str, str | None]]:
    try:
        return connection.command(sql, COPY_WAIT_S)
    except TimeoutError:
        raise _waiting(admin) from None


def _waiting(admin: Admin) -> RetriableError:
    if admin.is_standby:
        text = "the making of a replication slot waits for the primary: `select pg_log_standby_snapshot()` there"
        return RetriableError(f"{text}, and end long transactions", connector="postgres", has_no_values=True)
    running = admin.holders(_RUNNING)
    text = f"the making of a replication slot waits for transactions that run ({running}): end them, or run again when"
    return RetriableError(f"{text} they are over", connector="postgres", has_no_values=True)


def drop(admin: Admin, rows: Sequence[LedgerRow], *, keeps_publication: bool) -> list[str]:
    """Drop the slots and publications that rows name; see `ReadsLog.drop_log`."""
    dropped = []
    for slot in sorted({str(row.log["slot"]) for row in rows}):
        if admin.query(_SLOT, slot):
            try:
                admin.query("select pg_catalog.pg_drop_replication_slot(%s)", slot)
            except RetriableError as error:
                if IN_USE not in str(error):
                    raise
                text = f"replication slot {slot!r} is read by {reader_of(slot, admin.query)}, so it cannot be dropped"
                text += ". Drop the log when that reader has ended"
                raise RetriableError(text, connector="postgres", has_no_values=True) from error
            dropped.append(f"slot {slot!r}")
    for publication in (
        () if keeps_publication or admin.is_standby else sorted({str(row.log["publication"]) for row in rows})
    ):
        if admin.query(_PUBLICATION, publication):
            admin.query(f"drop publication {quote(publication)}")
            dropped.append(f"publication {publication!r}")
    return dropped


__all__ = [
    "COPY_WAIT_S",
    "Admin",
    "Names",
    "TableFacts",
    "changed",
    "clock",
    "demand_planned",
    "demand_reported",
    "drop",
    "entries",
    "log_end",
    "look",
    "lsn_text",
    "make",
    "moment",
    "names_of",
    "noted",
    "oid_of",
    "slot_of",
    "tables_numbered",
    "tables_of",
]
