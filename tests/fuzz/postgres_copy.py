"""PostgreSQL's COPY in binary, damaged: on its way out of a server into Arrow, and as blocks on their way into one."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.postgres.asyncpg_session import connect
from syncblocks.connectors.postgres.settings import parse_address
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.stream import Block
from tests.connectors.postgres.postgres_proxy import Proxy
from tests.fuzz.loop import damaged, touch

TABLE = """create table if not exists t (id int primary key, flag bool, n bigint, r real, d double precision,
m numeric(12,2), day date, at timestamp, moment timestamptz, name text, raw bytea, u uuid, tags text[], doc json,
span interval)"""
RECORDS = """insert into t select n, n % 2 = 0, n, n, n, n / 4.0, '2024-02-29', '2024-02-29 10:00',
'2024-02-29 10:00+00', repeat('x', n), decode('00ff', 'hex'), md5(n::text)::uuid, array['a', null, 'b'],
'{"a": 1}', interval '1 day 2 s' from generate_series(1, 30) n on conflict do nothing"""

_COPY_DATA = b"d"
_HEADER = 5


class Damaging(Proxy):
    """Damages one of the messages that carry records."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        #: By whom, and which of them, from 0; None: none.
        self.chance: random.Random | None = None
        self.place = -1
        self.count = 0

    def _pump(self, source: socket.socket, sink: socket.socket, state: dict[str, bool], is_client: bool) -> None:
        if is_client:
            super()._pump(source, sink, state, is_client)
            return
        with suppress(OSError), source.makefile("rb") as sent:
            while len(header := sent.read(_HEADER)) == _HEADER:
                payload = sent.read(int.from_bytes(header[1:], "big") - 4)
                sink.sendall(self._changed(header, payload))
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _changed(self, header: bytes, payload: bytes) -> bytes:
        if header[:1] == _COPY_DATA:
            if self.chance is not None and self.count == self.place:
                payload = damaged(payload, self.chance)
            self.count += 1
        return header[:1] + (len(payload) + 4).to_bytes(4, "big") + payload


def fuzzer(prepared: str) -> Callable[[random.Random], str]:
    with psycopg.connect(prepared, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(RECORDS)
        connection.execute("create table if not exists copied (like t)")
    between = Damaging(prepared)
    threading.Thread(target=between.serve, daemon=True).start()
    url = between.url + "?sslmode=disable&gssencmode=disable"
    assert _read(url) == "read"
    whole = between.count
    with closing(connect(parse_address(prepared), "begin")) as session:
        session.begin()
        sound = b"".join(session.copy_out("select * from t"))

    def once(chance: random.Random) -> str:
        if chance.random() < 0.5:
            return _written(prepared, damaged(sound, chance))
        between.chance, between.count, between.place = chance, 0, chance.randrange(whole)
        try:
            return _read(url)
        finally:
            between.chance = None

    return once


def _read(url: str) -> str:
    """Read as a source does, as Arrow."""
    try:
        with closing(make_source("postgres", {"url": url}, Path.cwd())) as source:
            (stream,) = [each for each in source.discover() if each.name == "public.t"]
            for _, event in source.read([stream], {stream.name: None}):
                if isinstance(event, pa.RecordBatch):
                    event.validate()
                    touch(event)
    except ConnectorError as error:
        return type(error).__name__
    return "read"


def _written(url: str, data: bytes) -> str:
    """Write blocks as a load does that gets them from another server."""
    blocks: list[Block] = [data[:1000], data[1000:]]
    with closing(connect(parse_address(url), "begin")) as session:
        session.begin()
        try:
            session.ingest(TableName("public", "copied"), pa.schema([]), iter(blocks), "pgcopy")
        except ConnectorError as error:
            return f"writing: {type(error).__name__}"
        finally:
            session.rollback()
    return "written"
