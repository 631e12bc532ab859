"""A Mage project goes on in tables that Mage has made in MySQL, where it keeps times and booleans as texts."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from tests import services
from tests.conftest import RunCLI
from tests.sync.importers.test_mage_tables import PIPELINE

CONNECTION = """\
{role}: {kind}
config:
  host: "{host}"
  port: {port}
  database: {database}
  username: {user}
  password: "{{{{ env_var('PASSWORD_OF_{role}') }}}}"
{more}"""

#: As Mage makes it in MySQL; `name` is one of its reserved words.
TABLE = """
CREATE TABLE {table} (id INTEGER NOT NULL, price DOUBLE, sold CHAR(52), is_paid CHAR(52), _name CHAR(255),
  _mage_created_at CHAR(52), _mage_updated_at CHAR(52){keys})
"""
RECORDS = """
INSERT INTO {table} VALUES
  (1, 1.5, '2024-01-01T00:00:00', 'True', 'of mage', '2024-01-05 00:00:00.000000', '2024-01-05 00:00:00.000000'),
  (2, 2.5, '2024-01-02T00:00:00', 'False', 'of mage', '2024-01-05 00:00:00.000000', '2024-01-05 00:00:00.000000')
"""
SOURCE = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id int PRIMARY KEY, price numeric(10,2), sold timestamp, is_paid boolean, name text);
INSERT INTO shop.orders VALUES (1, 1.50, '2024-01-01', true, 'older'), (2, 2.25, '2024-01-02', true, 'changed'),
  (3, 10.10, '2024-01-03 12:00', false, 'new');
CREATE TABLE shop.visits AS SELECT * FROM shop.orders;
"""
KINDS = {"id": "integer", "price": "number", "sold": "string", "is_paid": "boolean", "name": "string"}


def stream(name: str, **settings: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {column: {"type": ["null", kind]} for column, kind in KINDS.items()}
    properties["sold"]["format"] = "date-time"
    metadata = [{"breadcrumb": [], "metadata": {"selected": True}}]
    base = {"tap_stream_id": name, "stream": name, "metadata": metadata, "schema": {"properties": properties}}
    return base | {"replication_method": "INCREMENTAL", "bookmark_properties": ["sold"]} | settings


STREAMS = {
    "night": stream("orders", key_properties=["id"], unique_constraints=["id"], unique_conflict_method="UPDATE"),
    "day": stream("visits"),
}


def write_project(folder: Path, source: str, destination: str) -> None:
    files = {
        "metadata.yaml": "project_type: standalone\n",
        "callbacks/heard.py": "@callback\ndef heard(**kwargs): ...\n",
    }
    sides = (
        ("source", "data_loaders", "postgresql", source, "  schema: shop\n"),
        ("destination", "data_exporters", "mysql", destination, "  lower_case: true\n"),
    )
    for name, entry in STREAMS.items():
        files[f"pipelines/{name}/metadata.yaml"] = PIPELINE.format(name=name)
        files[f"pipelines/{name}/data_integration_catalog.json"] = json.dumps({"catalog": {"streams": [entry]}})
        for role, place, kind, url, more in sides:
            at = urlsplit(url)
            where: Mapping[str, Any] = {
                "host": at.hostname,
                "port": at.port or {"mysql": 3306}.get(kind, 5432),
                "user": at.username or "root",
            }
            text = CONNECTION.format(role=role, kind=kind, database=at.path.strip("/"), more=more, **where)
            files[f"{place}/{name}_{role}.yaml"] = text
        table = entry["stream"]
        state = {"bookmarks": {table: {"sold": "2024-01-02T00:00:00"}}}
        files[f"state/shop/pipelines/{name}/mysql/{table}/{table}_state"] = json.dumps(state)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.full
def test_two_pipelines_go_on_in_mages_tables_in_mysql(
    postgres_url: str, mariadb_url: str, run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path / "shop", postgres_url, mariadb_url)
    monkeypatch.setenv("PASSWORD_OF_source", urlsplit(postgres_url).password or "none")
    monkeypatch.setenv("PASSWORD_OF_destination", urlsplit(mariadb_url).password or "")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(SOURCE)
    with services.connect_mariadb(mariadb_url) as server, server.cursor() as cursor:
        for table, keys in (("orders", ", CONSTRAINT unique_orders_id UNIQUE (id), PRIMARY KEY (id)"), ("visits", "")):
            cursor.execute(TABLE.format(table=table, keys=keys))
            cursor.execute(RECORDS.format(table=table))
        server.commit()
    new, state = tmp_path / "new", tmp_path / "shop" / "state"
    done = run_cli(["init", "--from-mage", tmp_path / "shop", "--mage-data", state, "--json", new], tmp_path)
    assert done.returncode == 0, done.stderr
    for name, table in (("night", "orders"), ("day", "visits")):
        adopt = ["state", "adopt", f"{name}.yaml", f"shop.{table}", "sold=2024-01-02T00:00:00"]
        assert shlex.join(["syncblocks", *adopt]) in " ".join(json.loads(done.stdout)["next"])
        path = new / f"{name}.yaml"
        document = yaml.safe_load(path.read_text())
        document |= yaml.safe_load(copied(run_cli(adopt, new), r"by hand: (transformers: .*)"))
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        document["streams"][0] |= yaml.safe_load(copied(run_cli(adopt, new), r"copy .*: (types: \{.*\})"))
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        assert document["transformers"][0]["rename"] == {"name": "_name"}
        adopted = run_cli(adopt, new)
        assert adopted.returncode == 0, adopted.stderr
        for records in (2, 0):
            ran = run_cli(["run", f"{name}.yaml", "--json"], new)
            assert ran.returncode == 0, ran.stderr
            assert json.loads(ran.stdout.splitlines()[-1])["streams"][0]["records"] == records
    with services.connect_mariadb(mariadb_url) as server, server.cursor() as cursor:
        cursor.execute("SELECT id, price, sold, is_paid, _name FROM orders ORDER BY id")
        orders = list(cursor.fetchall())
        cursor.execute("SELECT id, _name FROM visits ORDER BY id, _name")
        visits = list(cursor.fetchall())
        cursor.execute("SELECT id, _mage_created_at < '2024-02', _mage_updated_at > '2024-02' FROM orders ORDER BY id")
        stamped = list(cursor.fetchall())
        cursor.execute("SELECT _mage_created_at FROM orders WHERE id = 3")
        ((created,),) = cursor.fetchall()
    assert orders == [
        (1, 1.5, "2024-01-01T00:00:00", "True", "of mage"),
        (2, 2.25, "2024-01-02T00:00:00.000000", "true", "changed"),
        (3, 10.1, "2024-01-03T12:00:00.000000", "false", "new"),
    ]
    assert visits == [(1, "of mage"), (2, "changed"), (2, "of mage"), (3, "new")]
    assert stamped == [(1, 1, 0), (2, 1, 1), (3, 0, 1)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", created)


def copied(done: Any, pattern: str) -> str:
    """Return what a refused adoption names to copy."""
    assert done.returncode == 2, done.stdout + done.stderr
    found = re.search(pattern, done.stderr)
    assert found is not None, done.stderr
    return found[1]
