"""A pipeline whose streams can run anywhere: tables in its file, a destination and a run store in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.sync.pipelines import Bench


class SpreadBench(Bench):
    """A bench of which other processes reach everything."""

    def __init__(self, folder: Path, url: str, executor: Any) -> None:
        super().__init__(folder)
        self.url = url
        self.document["source"]["config"] = {"tables": {}}
        self.document["destination"] = {"block": "export", "connector": "postgres", "config": {"url": url}}
        self.document |= {"store": url, "executor": executor, "drain_s": 60}

    def seed(self, name: str, records: int | Sequence[Mapping[str, Any]], key: Sequence[str] = ("id",)) -> None:
        if isinstance(records, int):
            records = [{"id": number, "v": f"{name}-{number}"} for number in range(records)]
        self.document["source"]["config"]["tables"][name] = {
            "columns": {"id": "int64", "v": "string"},
            "key": list(key),
            "records": [dict(record) for record in records],
        }

    def ask(self, query: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return list(connection.execute(query).fetchall())

    def rows(self, table: str) -> list[dict[str, Any]]:
        query = sql.SQL("select id, v from {} order by id").format(sql.Identifier(table))
        return [{"id": id_, "v": v} for id_, v in self.ask(query)]
