"""Catalog queries: one for all streams of a source, one for any number of a destination's tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..arrow.shared_fields import shared_field
from ..errors import ConnectorConfigError
from ..field_facts import FieldFacts, Precision, facts_of, with_facts
from ..log_based import GENERATED
from ..sql.dialect.catalog import Catalog
from ..sql.identifiers import OWN_PREFIX, STAGING_PREFIX, Naming, TableName, literal, quote
from ..sql.session import Session
from ..sql.tables import Column, Table
from ..stream import Stream, Trigger
from ..write_spec import WriteDisposition
from .describe import ResultColumn
from .type_names import Name
from .types import PostgresTypes, arrow_of

# These run with the user's `search_path`, where anyone may have created functions and operators that match better than
# the server's own. So every function has its schema, and every operator exists in the server for exactly these two
# types. For example, an `oid` is compared with an `oid`, and not with a number or a `regclass`.

#: For a user-defined type or a domain: the name of its (base) type with the schema, the schema of its
#: operator `=`, and the labels of an enum.
_OWN_TYPE = """case when y.typtype = 'd' or y.typnamespace <> 'pg_catalog'::regnamespace::oid then (
      with recursive b as (
        select a.atttypid as oid, a.atttypmod as mod, 1 as depth
        union all select d.typbasetype, d.typtypmod, b.depth + 1
        from b join pg_catalog.pg_type d on d.oid = b.oid and d.typtype = 'd')
      select pg_catalog.json_build_array(
        case when m.nspname <> 'pg_catalog' and pg_catalog.pg_type_is_visible(x.oid)
          then pg_catalog.quote_ident(m.nspname::text) || '.' else '' end || pg_catalog.format_type(b.oid, b.mod),
        (select q.nspname from pg_catalog.pg_opclass o
          join pg_catalog.pg_am h on h.oid = o.opcmethod and h.amname = 'btree'
          join pg_catalog.pg_amop w on w.amopfamily = o.opcfamily and w.amoplefttype = o.opcintype
            and w.amoprighttype = o.opcintype and w.amopstrategy = 3
          join pg_catalog.pg_operator p on p.oid = w.amopopr
          join pg_catalog.pg_namespace q on q.oid = p.oprnamespace
          where o.opcdefault and o.opcintype = x.oid limit 1),
        (select pg_catalog.json_agg(e.enumlabel order by e.enumsortorder)
          from pg_catalog.pg_enum e where e.enumtypid = x.oid))
      from b join pg_catalog.pg_type x on x.oid = b.oid join pg_catalog.pg_namespace m on m.oid = x.typnamespace
      order by b.depth desc limit 1) end"""

#: The enums of a database: name with the schema, name as the session writes it, labels.
_ENUMS = """select pg_catalog.quote_ident(n.nspname::text) || '.' || pg_catalog.quote_ident(t.typname::text),
  pg_catalog.format_type(t.oid, null), pg_catalog.json_agg(e.enumlabel)::text
from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
join pg_catalog.pg_enum e on e.enumtypid = t.oid
where pg_catalog.has_type_privilege(t.oid, 'USAGE') and pg_catalog.has_schema_privilege(n.oid, 'USAGE')
group by 1, 2"""

#: The base type of a domain.
_BASE = """case y.typtype when 'd' then (
      with recursive b as (
        select y.typbasetype as oid, y.typtypmod as mod, 1 as depth
        union all select d.typbasetype, d.typtypmod, b.depth + 1
        from b join pg_catalog.pg_type d on d.oid = b.oid and d.typtype = 'd')
      select pg_catalog.format_type(b.oid, b.mod) from b order by b.depth desc limit 1) end"""

#: `false` for a column whose collation treats some different texts as equal (since PostgreSQL 12); else NULL or `true`.
_IS_EXACT = """(select pg_catalog.json_extract_path_text(pg_catalog.row_to_json(k), 'collisdeterministic')
      from pg_catalog.pg_collation k where k.oid = a.attcollation)"""

#: Columns of a table; the base type of a domain; and whether its collation distinguishes all texts.
_COLUMNS = f"""(
  select pg_catalog.json_agg(pg_catalog.json_build_array(
    a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '',
    a.atthasdef or a.attidentity <> '',
    {_BASE}, {_OWN_TYPE}, {_IS_EXACT}, a.attnum)
    order by a.attnum)
  from pg_catalog.pg_attribute a join pg_catalog.pg_type y on y.oid = a.atttypid
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)"""

#: Types by number and modifier, as a query's result reports them.
_DESCRIBED = f"""select a.place, pg_catalog.format_type(a.atttypid, a.atttypmod), {_BASE}, ({_OWN_TYPE})::text
from (select w.place, w.id::oid as atttypid, w.mod as atttypmod
  from pg_catalog.json_to_recordset(cast($1 as json)) as w(place int, id bigint, mod int)) as a
join pg_catalog.pg_type y on y.oid = a.atttypid"""

_KEY = """(
  select pg_catalog.json_agg(a.attname order by k.place)
  from pg_catalog.pg_index i, pg_catalog.unnest(i.indkey) with ordinality as k(attnum, place),
    pg_catalog.pg_attribute a
  where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.attnum
    and k.place <= i.indnkeyatts)"""

_UNIQUE = """(
  select pg_catalog.json_agg((select pg_catalog.json_agg(a.attname)
    from pg_catalog.unnest(i.indkey) with ordinality as k(attnum, place),
    pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum = k.attnum and k.place <= i.indnkeyatts))
  from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
    and i.indpred is null and i.indexprs is null)"""

_IS_OWNER = "pg_catalog.pg_has_role(c.relowner, 'USAGE')"

#: The table and its partitions of all levels. The server's `pg_partition_tree` would lock each partition.
_TREE = """with recursive tree as (
    select c.oid union select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid
    join pg_catalog.pg_class p on p.oid = i.inhrelid and p.relispartition)"""

# Found through what depends on the table: there is no index on `confrelid`. Of a key from the table to itself, each
# partition has a copy.
_IS_REFERENCED = f"""exists ({_TREE} select 1 from tree, pg_catalog.pg_depend d, pg_catalog.pg_constraint k
  where d.refclassid = 'pg_catalog.pg_class'::regclass::oid and d.refobjid = tree.oid
    and d.classid = 'pg_catalog.pg_constraint'::regclass::oid and k.oid = d.objid
    and k.confrelid = tree.oid and k.contype = 'f')"""

_HAS_TRIGGERS = f"""(c.relhasrules or c.relrowsecurity or c.relkind <> 'r' or c.relispartition or not {_IS_OWNER}
  or exists (select 1 from pg_catalog.pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal)
  or exists (select 1 from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'f'))"""

#: Whether this table has properties that a new table of the same name would lack.
_HAS_DEPENDENTS = """(f.triggers or f.referenced or c.relpersistence <> 'p' or c.reltablespace <> '0'
  or c.reloptions is not null or c.reloftype <> '0' or c.relreplident <> 'd'
  or exists (select 1 from pg_catalog.pg_inherits h where c.oid in (h.inhparent, h.inhrelid))
  or exists (select 1 from pg_catalog.pg_depend d where d.refclassid = 'pg_catalog.pg_class'::regclass::oid
    and d.refobjid = c.oid and d.deptype = 'n' and d.classid <> 'pg_catalog.pg_attrdef'::regclass::oid)
  or exists (select 1 from pg_catalog.pg_depend d, pg_catalog.pg_type t
    where d.refclassid = 'pg_catalog.pg_type'::regclass::oid and t.oid = c.reltype and d.deptype = 'n'
    and d.refobjid in (t.oid, t.typarray))
  or exists (select 1 from pg_catalog.pg_index i where i.indrelid = c.oid and not i.indisprimary)
  or exists (select 1 from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype not in ('p', 'n'))
  or exists (select 1 from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
    and not a.attisdropped and (a.attacl is not null or a.atthasdef or a.attidentity <> ''
      or a.attcollation <> (select t.typcollation from pg_catalog.pg_type t where t.oid = a.atttypid)))
  or exists (select 1 from pg_catalog.pg_publication_rel r where r.prrelid = c.oid)
  or exists (select 1 from pg_catalog.pg_statistic_ext s where s.stxrelid = c.oid)
  or exists (select 1 from pg_catalog.pg_description s where s.objoid = c.oid
    and s.classoid = 'pg_catalog.pg_class'::regclass::oid))"""

_GRANTS = """(
  select pg_catalog.json_agg(pg_catalog.json_build_array(
    case g.grantee when '0' then '' else pg_catalog.pg_get_userbyid(g.grantee) end,
    g.privilege_type, g.is_grantable))
  from pg_catalog.aclexplode(c.relacl) g)"""

# Triggers that fire in an ordinary session like ours.
_TRIGGERS = """(
  select pg_catalog.json_agg(pg_catalog.json_build_array(g.tgname, g.tgtype, p.proname) order by g.tgname)
  from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
  where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled in ('O', 'A'))"""

# Events are 1 to 4: select, update, insert, delete.
_RULES = """(
  select pg_catalog.json_agg(
    pg_catalog.json_build_array(r.rulename, r.ev_type, r.is_instead, r.ev_enabled in ('O', 'A')) order by r.rulename)
  from pg_catalog.pg_rewrite r where r.ev_class = c.oid and r.ev_type <> '1')"""

#: Other tables that foreign keys of the table or its partitions refer to; for a partition, its parents too.
_PARENTS = f"""({_TREE}, parent as (
    select k.confrelid as oid from tree join pg_catalog.pg_constraint k on k.conrelid = tree.oid and k.contype = 'f'
    union select i.inhparent from parent join pg_catalog.pg_class p on p.oid = parent.oid and p.relispartition
    join pg_catalog.pg_inherits i on i.inhrelid = p.oid)
  select pg_catalog.json_agg(pg_catalog.json_build_array(n.nspname, p.relname))
  from parent join pg_catalog.pg_class p on p.oid = parent.oid
  join pg_catalog.pg_namespace n on n.oid = p.relnamespace
  where parent.oid not in (select tree.oid from tree))"""

#: The role, if policies limit the records that it sees; NULL: it sees them all.
_HIDDEN_FROM = "case when c.relrowsecurity and pg_catalog.row_security_active(c.oid) then current_user::text end"

# From the statistics, which need no lock on the table, unlike its size.
_RECORDS = """(case c.relkind when 'r' then greatest(c.reltuples::bigint,
    pg_catalog.pg_stat_get_live_tuples(c.oid) + pg_catalog.pg_stat_get_dead_tuples(c.oid)) end)"""

# `offset 0`: the subquery runs once for each table, not at every use of its columns.
_REFLECT = f"""select n.nspname::text, c.relname::text, c.relkind::text,
  pg_catalog.json_build_object('columns', {_COLUMNS}, 'key', {_KEY}, 'unique', {_UNIQUE},
    'dependents', {_HAS_DEPENDENTS}, 'referenced', f.referenced, 'triggers', f.triggers, 'grants', {_GRANTS},
    'records', {_RECORDS}, 'firing', {_TRIGGERS}, 'rules', {_RULES}, 'parents', {_PARENTS},
    'oid', c.oid::text, 'owner', pg_catalog.pg_get_userbyid(c.relowner), 'user', current_user::text)::text
from pg_catalog.json_to_recordset(cast($1 as json)) as w(s text, t text)
join pg_catalog.pg_namespace n on n.nspname = w.s
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t
cross join lateral (select {_HAS_TRIGGERS} as triggers, {_IS_REFERENCED} as referenced offset 0) as f
where c.relkind in ('r', 'p', 'v', 'm', 'f')"""

_STAGING = f"""select n.nspname::text, c.relname::text from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence <> 't' and pg_catalog.starts_with(c.relname::text, '{STAGING_PREFIX}')"""

#: The tables and views that a source may offer, of one schema or all.
_OFFERED = f"""c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition and c.relpersistence <> 't'
  and n.nspname <> 'information_schema' and not pg_catalog.starts_with(n.nspname::text, 'pg_')
  and not pg_catalog.starts_with(c.relname::text, '{OWN_PREFIX}')
  and ($1::text = '' or n.nspname = $1)"""

_MAY_READ = """(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  and pg_catalog.has_any_column_privilege(c.oid, 'SELECT'))"""

_STREAMS = f"""select n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::bigint, c.relpages, c.oid::bigint,
  pg_catalog.json_build_object('columns', {_COLUMNS}, 'key', {_KEY}, 'hidden_from', {_HIDDEN_FROM})::text
from {{tables}}
where {_OFFERED} and {_MAY_READ}"""

_ALL = "pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"

_UNREADABLE = f"""select n.nspname::text, c.relname::text from {_ALL}
where {_OFFERED} and c.relkind in ('r', 'p', 'f') and not {_MAY_READ} order by 1, 2"""

#: The tables of some names, each found by an index of the catalog.
_NAMED = """pg_catalog.json_to_recordset(cast($2 as json)) as w(s text, t text)
join pg_catalog.pg_namespace n on n.nspname = w.s
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t"""

#: Selects `{found}` from a table, and so locks the table against ALTER.
_LOCKED = (
    "select {found} from pg_catalog.pg_class c "
    "where c.oid = pg_catalog.to_regclass({name})::oid and not exists (select 1 from {table} where false)"
)

# The columns of a table, locked in the same way. Domains are not resolved: this would take most of the time.
_COLUMNS_NOW = """select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnum::int,
  y.typtype = 'd', a.attrelid::bigint
from pg_catalog.pg_attribute a join pg_catalog.pg_type y on y.oid = a.atttypid
where a.attrelid = pg_catalog.to_regclass({name})::oid and a.attnum > 0 and not a.attisdropped
  and not exists (select 1 from {table} where false)"""

# A catalog row that was updated since the snapshot names its transaction, even a rolled back one.
_CHANGES = """pg_catalog.concat_ws(' ', nullif(c.xmax::text, '0'), (
  select pg_catalog.string_agg(a.attnum::text || ':' || a.xmax::text, ' ') from pg_catalog.pg_attribute a
  where a.attrelid = c.oid and a.xmax::text <> '0'), case
  when c.relfilenode <> coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) then 'rewritten' end)"""

# The named objects of `_HAS_DEPENDENTS`; `$1` is the table.
_DEPENDENTS = """select w.kind || ' ' || w.name from (
  select distinct case v.relkind when 'm' then 'materialized view' else 'view' end as kind, v.relname::text as name
  from pg_catalog.pg_depend d join pg_catalog.pg_rewrite r on r.oid = d.objid
  join pg_catalog.pg_class v on v.oid = r.ev_class
  where d.classid = 'pg_catalog.pg_rewrite'::regclass::oid and d.refobjid = pg_catalog.to_regclass($1)::oid
    and v.oid <> d.refobjid
  union all select 'index', x.relname::text from pg_catalog.pg_index i
  join pg_catalog.pg_class x on x.oid = i.indexrelid
  where i.indrelid = pg_catalog.to_regclass($1)::oid and not i.indisprimary
  union all select 'trigger', g.tgname::text from pg_catalog.pg_trigger g
  where g.tgrelid = pg_catalog.to_regclass($1)::oid and not g.tgisinternal
  union all select 'foreign key', k.conname::text || ' of table ' || o.relname::text from pg_catalog.pg_constraint k
  join pg_catalog.pg_class o on o.oid = k.conrelid
  where k.confrelid = pg_catalog.to_regclass($1)::oid and k.contype = 'f'
  union all select 'constraint', k.conname::text from pg_catalog.pg_constraint k
  where k.conrelid = pg_catalog.to_regclass($1)::oid and k.contype not in ('p', 'n', 'u')) as w order by 1"""

_TABLE_KINDS = ("r", "p")


def streams(
    session: Session, schema: str, text_columns: Sequence[str], system: str, names: Collection[str] | None = None
) -> list[Stream]:
    """Return the streams of a source: tables, partitioned parents and (marked) views.

    Partitions and our own tables are left out.

    Args:
        session: the source's session.
        schema: the only schema; empty: all.
        text_columns: columns to read as text, as `schema.table.column`.
        system: name of the system in the columns' types.
        names: the only streams; None: all.
    """
    found = []
    wanted = set(text_columns)
    tables = [TableName.parse(name, schema) for name in names or ()]
    parameters = (schema,) if names is None else (schema, json.dumps([{"s": w.schema, "t": w.name} for w in tables]))
    query = _STREAMS.format(tables=_ALL if names is None else _NAMED)
    for namespace, table, kind, estimate, pages, oid, details in session.query(query, parameters):
        name = TableName(namespace, table)
        described = json.loads(details)
        key = tuple(described["key"] or ())
        generated = tuple(column for column, _, _, is_generated, *_ in described["columns"] or () if is_generated)
        fields = []
        for column, declared, is_required, _, _, base, own, *_ in described["columns"] or ():
            path = f"{namespace}.{table}.{column}"
            field = _field(column, declared, base, own, system, is_text=path in wanted)
            wanted.discard(path)
            is_nullable = not (is_required or column in key)
            fields.append(shared_field(field.name, field.type, is_nullable, facts_of(field)))
        found.append(
            Stream(
                name=str(name),
                schema=pa.schema(fields),
                key_properties=key,
                hidden_by=_hidden_by(described["hidden_from"]),
                is_view=kind not in _TABLE_KINDS and kind != "f",
                estimated_records=estimate if estimate > 0 or (estimate == 0 and kind == "r") else None,
                locator={
                    "schema": namespace,
                    "table": table,
                    "kind": kind,
                    "pages": pages,
                    "places": {"": oid, **{column: place for column, *_, place in described["columns"] or ()}},
                    **({GENERATED: generated} if generated else {}),
                },
            )
        )
    if wanted and names is None:
        raise ConnectorConfigError(
            f"text_columns names {', '.join(sorted(wanted))}, but no table has this column (schema.table.column)",
            connector="postgres",
            key="text_columns",
        )
    return found


def unreadable(session: Session, schema: str) -> list[str]:
    """Return the tables that the role may not read, in one schema or, if empty, in all."""
    return [str(TableName(*names)) for names in session.query(_UNREADABLE, (schema,))]


def _hidden_by(role: str | None) -> str:
    """Return why some records of a table may be hidden; empty: all are readable."""
    if role is None:
        return ""
    return (
        f"row level security limits the records that role {role!r} sees, so only these are read, counted and "
        f"compared; an administrator can run `alter role {quote(role)} bypassrls` to show all"
    )


def described(session: Session, columns: Sequence[ResultColumn], system: str) -> list[pa.Field]:
    """Return the columns of a query as fields, with catalog facts about their types."""
    numbers = json.dumps([{"place": place, "id": each.oid, "mod": each.modifier} for place, each in enumerate(columns)])
    found = session.query(_DESCRIBED, (numbers,))
    details = {int(place): (str(declared), base, own) for place, declared, base, own in found}
    fields = []
    for place, column in enumerate(columns):
        declared, base, own = details[place]
        fields.append(_field(column.name, declared, base, json.loads(own) if own else None, system, is_text=False))
    return fields


def _field(column: str, declared: str, base: str | None, own: Any, system: str, *, is_text: bool) -> pa.Field:
    native = base or declared
    labels = tuple(own[2] or ()) if own is not None and not is_text else ()
    is_undecided = native == "numeric" and not is_text
    return with_facts(
        pa.field(column, pa.string() if is_text else arrow_of(native)[0]),
        native_type=native,
        native_system=system,
        read_as="text" if is_text else "base" if base else "",
        type_name="" if own is None else own[0],
        labels=labels,
        precision=Precision.UNDECIDED if is_undecided else Precision.KNOWN,
    )


def as_json(field: pa.Field) -> pa.Field:
    """Read an array as JSON; return any other column, and one read as text, unchanged."""
    facts = facts_of(field)
    if not Name.parse(facts.native_type).is_array or facts.read_as == "text":
        return field
    own = FieldFacts(native_type="json", native_system=facts.native_system, read_as="json")
    return with_facts(pa.field(field.name, pa.json_(), field.nullable), own)


def columns_now(session: Session, name: TableName) -> tuple[dict[str, str], dict[str, int]]:
    """Lock a table against ALTER; return types (for domains, the base types) and positions of its columns.

    The empty name maps to the table's own id. In a transaction with one snapshot, these are the columns of that
    snapshot; otherwise the columns of any later statement.
    """
    found = session.query(_COLUMNS_NOW.format(name=literal(_quoted(name)), table=_quoted(name)))
    types = {str(column): str(declared) for column, declared, *_ in found}
    places = {str(column): int(place) for column, _, place, *_ in found}
    if found:
        places[""] = int(found[0][-1])
    if any(is_domain for *_, is_domain, _ in found):
        ((columns,),) = session.query(_locked(name, f"{_COLUMNS}::text"))
        types.update({column: base or declared for column, declared, _, _, _, base, *_ in json.loads(columns)})
    return types, places


def changes_since_snapshot(session: Session, name: TableName) -> str:
    """Lock a table against ALTER, and name its changes between the snapshot and now; empty: none.

    A rolled back change is named as well, always with the same text.
    """
    found = session.query(_locked(name, _CHANGES))
    return str(found[0][0]) if found else "made anew"


def _locked(name: TableName, found: str) -> str:
    # The server takes the lock when it parses the statement, before it runs.
    return _LOCKED.format(found=found, name=literal(_quoted(name)), table=_quoted(name))


def is_indexed(session: Session, name: TableName, column: str) -> bool:
    """Return whether a whole table has an index that begins with a column, and its order."""
    table = f"pg_catalog.to_regclass({literal(_quoted(name))})::oid"
    sql = (
        "select 1 from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid "
        "join pg_catalog.pg_am m on m.oid = c.relam join pg_catalog.pg_attribute a "
        "on a.attrelid = i.indrelid and a.attnum = i.indkey[0] "
        f"where i.indrelid = {table} and a.attname = $1 and i.indisvalid and i.indpred is null and m.amname = 'btree'"
    )
    return bool(session.query(f"{sql} limit 1", (column,)))


class PostgresCatalog(Catalog):
    """Reads any number of tables in one query."""

    def __init__(self, naming: Naming, types: PostgresTypes) -> None:
        super().__init__(naming)
        self._types = types

    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog in one query; also stores the domains it finds."""
        if not tables:
            return {}
        asked = json.dumps([{"s": name.schema, "t": name.name} for name in tables])
        found = {}
        for namespace, table, kind, details in session.query(_REFLECT, (asked,)):
            name = TableName(namespace, table)
            found[name] = _table(name, kind, json.loads(details))
        self._types.domains.update(
            (each.type, each.base) for table in found.values() for each in table.columns if each.base
        )
        return found

    def read_enums(self, session: Session) -> None:
        """Load the enums; columns of new tables may use them."""
        found = session.query(_ENUMS)
        self._types.enums = {name: (shown, frozenset(json.loads(labels))) for name, shown, labels in found}

    def exists(self, session: Session, name: TableName) -> bool:
        """Look the name up."""
        found = session.query("select 1 where pg_catalog.to_regclass($1) is not null", (self._naming.table(name),))
        return bool(found)

    def lock_shape(self, session: Session, name: TableName) -> bool:
        """Take a writer's lock early: COPY relies on the column types that are read next."""
        session.execute(f"lock table {self._naming.table(name)} in row exclusive mode")
        return True

    def keeps_types(self, session: Session, name: TableName, types: Mapping[str, str]) -> bool:
        """Read the catalog: COPY interprets the bytes by the column's type."""
        now, _ = columns_now(session, name)
        return all(now.get(column) == self._types.base(kind) for column, kind in types.items())

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return staging tables of all schemas."""
        return [TableName(schema, table) for schema, table in session.query(_STAGING)]

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Return the views, indexes, triggers and constraints that depend on a table, by kind and name."""
        return [str(name) for (name,) in session.query(_DEPENDENTS, (_quoted(table.name),))]


def _quoted(name: TableName) -> str:
    return f"{quote(name.schema)}.{quote(name.name)}"


def _table(name: TableName, kind: str, details: Mapping[str, Any]) -> Table:
    columns = tuple(
        Column(
            name=column,
            type=native,
            is_nullable=not is_required,
            is_generated=is_generated,
            has_default=has_default,
            base=base or "",
            equality=(own and own[1]) or "",
            is_folded=is_exact == "false"
            or (base or native) == "bpchar"  # blanks at the end do not count; `character` with a length has all of them
            or bool(own and own[1] and own[1] != "pg_catalog"),
        )
        for column, native, is_required, is_generated, has_default, base, own, is_exact, _ in details["columns"] or ()
    )
    rules = details["rules"] if kind in _TABLE_KINDS and details["rules"] else ()
    return Table(
        name=name,
        columns=columns,
        unfit=_instead(rules),
        refuses=_refused_merges(rules),
        has_update_rules=any(event == _UPDATE for _, event, *_ in rules),
        key=tuple(details["key"] or ()),
        identity=details["oid"],
        unique_keys=tuple(frozenset(names) for names in details["unique"] or ()),
        is_table=kind in _TABLE_KINDS,
        has_dependents=details["dependents"],
        is_referenced=details["referenced"],
        refers_to=frozenset(TableName(*parent) for parent in details["parents"] or ()),
        has_triggers=details["triggers"],
        triggers=tuple(_trigger(*described) for described in details["firing"] or ()),
        records=details["records"],
        regrant=tuple(_regrant(name, details)),
    )


#: Bits of `pg_trigger.tgtype`.
_EVENTS = {4: "insert", 16: "update", 8: "delete"}


#: Rule events in `pg_rewrite.ev_type`.
_UPDATE, _INSERT = "2", "3"
_RULE_EVENTS = {_UPDATE: "UPDATE", _INSERT: "INSERT", "4": "DELETE"}

_RULE_ADVICE = "drop the rule, or make it a trigger"


def _instead(rules: Sequence[Sequence[Any]]) -> str:
    """Return the rule that silently prevents a write or a delete; empty: none."""
    for name, event, is_instead, is_enabled in rules:
        if is_instead and is_enabled:
            return f"has rule {name!r}, which replaces {_RULE_EVENTS[event]} by something else: {_RULE_ADVICE}"
    return ""


def _refused_merges(rules: Sequence[Sequence[Any]]) -> Mapping[WriteDisposition, str]:
    """Return the rule that runs after an INSERT and so sees no new record if the INSERT skips existing keys."""
    for name, event, _, is_enabled in rules:
        if event == _INSERT and is_enabled:
            why = f"has rule {name!r} on INSERT, so PostgreSQL cannot merge records: {_RULE_ADVICE}"
            return dict.fromkeys((WriteDisposition.MERGE, WriteDisposition.HISTORY), why)
    return {}


def _trigger(name: str, bits: int, function: str) -> Trigger:
    timing = "before" if bits & 2 else "instead of" if bits & 64 else "after"
    events = tuple(event for bit, event in _EVENTS.items() if bits & bit)
    return Trigger(name=name, timing=timing, events=events, function=function)


def _regrant(name: TableName, details: Mapping[str, Any]) -> list[str]:
    table = _quoted(name)
    statements = []
    owner = details["owner"]
    if details["grants"] is not None:
        # Default privileges may have given the new table more than the old one had.
        oid = f"{literal(table)}::regclass::oid"
        body = (
            "declare who text; begin for who in select distinct case g.grantee when '0' then 'public' "
            "else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) end "
            "from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) g "
            f"where c.oid = {oid} and g.grantee <> c.relowner loop "
            f"execute 'revoke all on '::text || {literal(table)} || ' from ' || who; end loop; end"
        )
        statements.append(f"do {literal(body)}")
        for grantee, privilege, is_grantable in details["grants"]:
            if grantee != owner:
                to = quote(grantee) if grantee else "public"
                option = " with grant option" if is_grantable else ""
                statements.append(f"grant {privilege} on {table} to {to}{option}")
    if owner != details["user"]:
        statements.append(f"alter table {table} owner to {quote(owner)}")
    return statements


__all__ = ["PostgresCatalog", "changes_since_snapshot", "columns_now", "is_indexed", "streams"]
