"""A Mage project with two pipelines comes over by one command and goes on in the tables that Mage has made."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from tests.conftest import RunCLI

#: A Mage project: pipeline -> table of its stream, in its own words.
PIPELINE = """\
name: {name}
uuid: {name}
type: integration
blocks:
- {{uuid: {name}_source, type: data_loader, language: yaml, upstream_blocks: []}}
- {{uuid: {name}_destination, type: data_exporter, language: yaml, callback_blocks: [heard],
   upstream_blocks: [{name}_source]}}
callbacks:
- {{uuid: heard, type: callback, language: python}}
"""

CONNECTION = """\
{role}: postgresql
config:
  host: "{host}"
  port: {port}
  database: "{{{{ env_var('SHOP_DB') }}}}"
  username: "{{{{ env_var('SHOP_USER') }}}}"
  password: "{{{{ env_var('SHOP_PASSWORD') }}}}"
  schema: {schema}
"""

HEARD = """\
from pathlib import Path
if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback
@callback('success')
def heard(parent_block_data, **kwargs):
    with Path(__file__).with_name(kwargs['stream'] + '.told').open('a') as told:
        told.write(f'{len(parent_block_data)} ')
"""

#: The tables as Mage makes them in PostgreSQL: DOUBLE PRECISION, TIMESTAMPTZ, its own two columns, UNIQUE.
MADE = """
CREATE TABLE shelf.orders (id BIGINT, price DOUBLE PRECISION, sold TIMESTAMPTZ, note VARCHAR(255),
  _mage_created_at TIMESTAMPTZ, _mage_updated_at TIMESTAMPTZ,
  CONSTRAINT unique_shelf_orders_id UNIQUE (id), PRIMARY KEY (id));
CREATE TABLE shelf.visits (id BIGINT, price DOUBLE PRECISION, sold TIMESTAMPTZ, note VARCHAR(255),
  _mage_created_at TIMESTAMPTZ, _mage_updated_at TIMESTAMPTZ);
INSERT INTO shelf.orders VALUES (1, 1.5, '2024-01-01Z', 'of mage', '2024-01-05Z', '2024-01-05Z'),
  (2, 2.5, '2024-01-02Z', 'of mage', '2024-01-05Z', '2024-01-05Z');
INSERT INTO shelf.visits SELECT * FROM shelf.orders;
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id int PRIMARY KEY, price numeric(10,2), sold timestamp, note text);
INSERT INTO shop.orders VALUES (1, 1.50, '2024-01-01', 'older'), (2, 2.25, '2024-01-02', 'changed'),
  (3, 10.10, '2024-01-03 12:00', 'new');
CREATE TABLE shop.visits AS SELECT * FROM shop.orders;
"""


def stream(name: str, **settings: Any) -> dict[str, Any]:
    kinds = {"id": "integer", "price": "number", "sold": "string", "note": "string"}
    properties: dict[str, Any] = {column: {"type": ["null", kind]} for column, kind in kinds.items()}
    properties["sold"]["format"] = "date-time"
    metadata = [{"breadcrumb": [], "metadata": {"selected": True}}]
    base = {"tap_stream_id": name, "stream": name, "metadata": metadata, "schema": {"properties": properties}}
    return base | {"replication_method": "INCREMENTAL", "bookmark_properties": ["sold"]} | settings


STREAMS = {
    "night": stream("orders", key_properties=["id"], unique_constraints=["id"], unique_conflict_method="UPDATE"),
    "day": stream("visits"),
}


def write_project(folder: Path, host: str, port: int) -> None:
    files = {"metadata.yaml": "project_type: standalone\n", "callbacks/heard.py": HEARD}
    for name, entry in STREAMS.items():
        files[f"pipelines/{name}/metadata.yaml"] = PIPELINE.format(name=name)
        files[f"pipelines/{name}/data_integration_catalog.json"] = json.dumps({"catalog": {"streams": [entry]}})
        for role, place, schema in (("source", "data_loaders", "shop"), ("destination", "data_exporters", "shelf")):
            text = CONNECTION.format(role=role, host=host, port=port, schema=schema)
            files[f"{place}/{name}_{role}.yaml"] = text
        table = entry["stream"]
        state = {"bookmarks": {table: {"sold": "2024-01-02 00:00:00"}}}
        files[f"state/shop/pipelines/{name}/postgresql/{table}/{table}_state"] = json.dumps(state)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.full
def test_two_pipelines_go_on_where_mages_bookmarks_stood_in_mages_tables(
    postgres_url: str, run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = urlsplit(postgres_url)
    write_project(tmp_path / "shop", place.hostname or "localhost", place.port or 5432)
    monkeypatch.setenv("SHOP_DB", place.path.strip("/"))
    monkeypatch.setenv("SHOP_USER", place.username or "root")
    monkeypatch.setenv("SHOP_PASSWORD", place.password or "none")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shelf")
        connection.execute(MADE)
    new = tmp_path / "new"
    done = run_cli(
        ["init", "--from-mage", tmp_path / "shop", "--mage-data", tmp_path / "shop" / "state", "--json", new], tmp_path
    )
    assert done.returncode == 0, done.stderr
    for name, table in (("night", "orders"), ("day", "visits")):
        adopt = ["state", "adopt", f"{name}.yaml", f"shop.{table}", "sold=2024-01-02 00:00:00"]
        assert shlex.join(["syncblocks", *adopt]) in " ".join(json.loads(done.stdout)["next"])
        refused = run_cli(adopt, new)
        assert refused.returncode == 2
        copied = re.search(r"copy .*: (types: \{.*\})", refused.stderr)
        assert copied is not None, refused.stderr
        path = new / f"{name}.yaml"
        document = yaml.safe_load(path.read_text())
        document["streams"][0] |= yaml.safe_load(copied[1])
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        adopted = run_cli(adopt, new)
        assert adopted.returncode == 0, adopted.stderr
        ran = run_cli(["run", f"{name}.yaml"], new)
        assert ran.returncode == 0, ran.stderr
        again = run_cli(["run", f"{name}.yaml", "--json"], new)
        assert json.loads(again.stdout.splitlines()[-1])["streams"][0]["records"] == 0
    with psycopg.connect(postgres_url, options="-c timezone=UTC") as connection:
        orders = connection.execute("SELECT id, price, note FROM shelf.orders ORDER BY id").fetchall()
        visits = connection.execute("SELECT id, price, note FROM shelf.visits ORDER BY id, note").fetchall()
        sold = connection.execute("SELECT sold FROM shelf.orders WHERE id = 3").fetchone()
        stamped = connection.execute(
            "SELECT id, _mage_created_at < '2024-02-01', _mage_updated_at > '2024-02-01' FROM shelf.orders ORDER BY id"
        ).fetchall()
        kinds = connection.execute(
            "SELECT DISTINCT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'shelf' AND column_name IN ('price', 'sold') ORDER BY 1"
        ).fetchall()
    # What is at the bookmark is read again, as by Mage; what is below is not.
    assert orders == [(1, 1.5, "of mage"), (2, 2.25, "changed"), (3, 10.1, "new")]
    assert visits == [(1, 1.5, "of mage"), (2, 2.25, "changed"), (2, 2.5, "of mage"), (3, 10.1, "new")]
    assert sold == (datetime(2024, 1, 3, 12, tzinfo=UTC),)
    assert stamped == [(1, True, False), (2, True, True), (3, False, True)]
    assert kinds == [("price", "double precision"), ("sold", "timestamp with time zone")]
    assert {path.stem: path.read_text() for path in (new / "callbacks").glob("*.told")} == {
        "orders": "2 0 ",
        "visits": "2 0 ",
    }
