"""Functions and operators that somebody with CREATE on `public` has made: they fit values better than the server's own.

For each of the server's functions and operators that our statements use, one for every type, or pair of types, that the
server has none for: an exact match is taken before any that needs a conversion, wherever it is found. The server counts
their calls, also those of transactions that only read or are rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

#: What our values and the catalog's are of; `citext` is one that somebody installed.
TYPES = """bool "char" name int2 int4 int8 oid text varchar bpchar float4 float8 numeric timestamptz timestamp date
bytea uuid regclass xid tid public.citext public.mood public.short"""

OPERATORS = "= <> < > <= >= || + - * / % ~ ~~"

FUNCTIONS = """hashtextextended count lower upper max min sum abs md5 length trim_scale encode decode to_regclass btrim
split_part ltrim rtrim replace coalesced array_to_json string_agg unnest isfinite to_char to_json regexp_replace mod
pg_relation_size bool_and bool_or concat concat_ws left lpad json_agg json_build_array json_build_object format_type
starts_with has_schema_privilege has_any_column_privilege set_config current_setting pg_size_bytes quote_ident
pg_get_userbyid textin bpcharout pg_advisory_xact_lock pg_terminate_backend greatest least position substring round
pg_snapshot_xmax pg_snapshot_xip string_to_array pg_relation_filenode to_number array_ndims pg_has_role aclexplode
pg_try_advisory_xact_lock json_to_recordset chr row_number floor ceil trunc nullif"""

_OPERATORS = """
do $$
declare a text; b text; o text; f text;
begin
  foreach a in array %(types)s::text[] loop
    commit;  -- the locks of all of them at once are more than the server has room for beside other tests
    foreach b in array %(types)s::text[] loop
      f := 'public.planted_' || md5(a || b);
      execute 'create function ' || f || '(' || a || ', ' || b || ') returns bool language plpgsql immutable '
        || 'as ''begin return true; end''';
      foreach o in array %(operators)s::text[] loop
        if to_regoperator('pg_catalog.' || o || '(' || a || ',' || b || ')') is null
            and to_regoperator('public.' || o || '(' || a || ',' || b || ')') is null then
          execute format('create operator public.%%s (function = %%s, leftarg = %%s, rightarg = %%s)', o, f, a, b);
        end if;
      end loop;
    end loop;
  end loop;
end $$
"""

_FUNCTIONS = """
do $$
declare a text; b text; f text; arguments text;
begin
  foreach f in array %(functions)s::text[] loop
    commit;
    foreach a in array %(types)s::text[] loop
      foreach b in array array['', 'int4', 'text[]'] loop
        arguments := a || case b when '' then '' when 'text[]' then ', variadic text[]' else ', ' || b end;
        if to_regprocedure('pg_catalog.' || f || '(' || replace(arguments, 'variadic ', '') || ')') is null
            and to_regprocedure('public.' || f || '(' || replace(arguments, 'variadic ', '') || ')') is null then
          execute 'create function public.' || quote_ident(f) || '(' || arguments || ') returns text '
            || 'language plpgsql immutable as ''begin return null; end''';
        end if;
      end loop;
    end loop;
  end loop;
end $$
"""


@contextmanager
def planted(url: str) -> Iterator[None]:
    """Plant them, and clean up what a database keeps beside its schemas."""
    name = sql.Identifier(urlsplit(url).path.strip("/"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "create extension if not exists citext schema public; create type public.mood as enum ('sad', 'glad'); "
            "create domain public.short as varchar(40)"
        )
        values = {"types": TYPES.split(), "operators": OPERATORS.split(), "functions": FUNCTIONS.split()}
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute("set check_function_bodies = off")
            cursor.execute(_OPERATORS, values)
            cursor.execute(_FUNCTIONS, values)
        connection.execute(sql.SQL("alter database {} set track_functions = 'pl'").format(name))
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("alter database {} reset track_functions").format(name))


def called(url: str) -> list[str]:
    """Return those that were called."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set search_path = ''")
        found = connection.execute(
            "select s.funcid::regprocedure::text from pg_catalog.pg_stat_user_functions s "
            "where s.schemaname = 'public' order by 1"
        )
        return [str(name) for (name,) in found]
