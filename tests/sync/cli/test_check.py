"""`syncblocks check`: what a run needs beyond connections."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pymysql
import pytest

from syncblocks.sync.cli import invoke
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.nobody import as_nobody, open_folder
from tests.sync.cli.cli_pipelines import CUSTOMERS, write_shop

Admin = Callable[[str], Any]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("stream: customers", "stream: custmers", "did you mean 'customers'?"),
        ("key_properties: [id]}", "key_properties: [idd]}", "'idd'"),
        ("[updated_at]", "[updated]", "'updated'"),
    ],
)
def test_a_misspelt_stream_or_column_is_an_error(
    run_cli: RunCLI, tmp_path: Path, before: str, after: str, said: str
) -> None:
    file = write_shop(tmp_path)
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    done = run_cli(["check"], tmp_path)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("error") == 1


def test_hosts_are_shown_as_the_file_writes_them_and_stored_in_one_spelling(
    run_cli: RunCLI, tmp_path: Path, postgres_url: str
) -> None:
    parts = urlsplit(postgres_url)
    place = f"127.0.0.1:{parts.port}" if parts.port not in (None, 5432) else "127.0.0.1"
    url = urlunsplit(parts._replace(netloc=f"{parts.username}:s3cret-canary@{parts.netloc.rpartition('@')[2]}"))
    url = url.replace(f"@{parts.hostname}", "@127.0.0.1")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create table t (id int primary key, name text); insert into t values (1, 'a'), (2, 'b')")
    stream = "{stream: public.t, where: {id: {'>': 1}}, columns: {mask: {name: null}}}"
    both = f"connector: postgres, config: {{url: '{url}'}}"
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        f"pipeline: shown\nsource: {{{both}}}\ndestination: {{{both.replace('}', ', schema: there}')}}}\n"
        f"streams:\n  - {stream}\n"
    )
    checked = run_cli(["check", "--json"], tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = {each["name"]: each["place"] for each in json.loads(checked.stdout)["checks"]}
    address = f"postgres://{place}/{parts.path[1:]}"
    assert {shown[each] for each in ("source", "destination", "streams", "privileges")} == {address}
    assert "s3cret-canary" not in checked.stdout

    assert run_cli(["run"], tmp_path).returncode == 0
    with psycopg.connect(postgres_url) as connection:
        (row,) = connection.execute("select source from there._syncblocks_ledger").fetchall()
    assert row[0].startswith(f"postgres://{place.replace('127.0.0.1', 'localhost')}/")
    store = Store.open(f"sqlite:///{tmp_path}/.syncblocks/store.db")
    try:
        extra = store.attempt_plan_of(1).extra
    finally:
        store.close()
    assert (extra["source"], extra["destination"]) == (address, address)


@pytest.fixture
def postgres_role(postgres_url: str) -> Iterator[tuple[Admin, str]]:
    """The database's owner, and the URL of a role that may do nothing."""
    parts = urlsplit(postgres_url)
    role = f"narrow_{parts.path[1:]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'create role "{role}" login')
        connection.execute(f'revoke all on database "{parts.path[1:]}" from public')
        connection.execute(f'grant connect on database "{parts.path[1:]}" to "{role}"')
        connection.execute("revoke all on schema public from public")
        try:
            place = f"{role}@{parts.hostname}:{parts.port}" if parts.port else f"{role}@{parts.hostname}"
            yield connection.execute, urlunsplit(parts._replace(netloc=place))  # type: ignore[arg-type]
        finally:
            connection.execute(f'drop owned by "{role}" cascade')
            connection.execute(f'drop role "{role}"')


@pytest.fixture
def mariadb_user(mariadb_url: str) -> Iterator[tuple[Admin, str]]:
    """The server's root, and the URL of a user who may only see the database."""
    parts = urlsplit(mariadb_url)
    user = f"n_{parts.path[-20:].strip('/')}"
    arguments = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "database": parts.path[1:]}
    with closing(pymysql.connect(**arguments, autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute(f"create user `{user}`@`%` identified by 'narrow'")
        cursor.execute(f"grant show view on `{parts.path[1:]}`.* to `{user}`@`%`")
        try:
            place = f"{user}:narrow@{parts.hostname}:{parts.port or 3306}"
            yield cursor.execute, urlunsplit(parts._replace(netloc=place))
        finally:
            cursor.execute(f"drop user `{user}`@`%`")


def write_to(folder: Path, connector: str, url: str, table: str) -> None:
    """Write a pipeline of an appended, a merged and a replaced stream; one of them into an existing table."""
    (folder / "data").mkdir()
    for name in ("new", "merged", "whole"):
        (folder / "data" / f"{name}.csv").write_text(CUSTOMERS)
    document = {
        "source": {"connector": "csv", "config": {"path": "data"}},
        "destination": {"connector": connector, "config": {"url": url}},
        "streams": [
            {"stream": "new", "write_disposition": "append"},
            {"stream": "merged", "write_disposition": "merge", "key_properties": ["id"], "destination_table": table},
            {"stream": "whole", "write_disposition": "replace"},
        ],
    }
    (folder / "pipeline.yaml").write_text(json.dumps(document))


def grant_what_is_printed(run_cli: RunCLI, folder: Path, admin: Admin) -> list[str]:
    """Run the printed statements until there are none; return them."""
    granted = list[str]()
    for _ in range(3):
        done = run_cli(["check", "pipeline.yaml"], folder)
        statements = [line.strip().rstrip(";") for line in done.stderr.splitlines() if line.endswith(";")]
        if not statements:
            assert done.returncode == 0, done.stderr
            return granted
        assert done.returncode == 1
        for statement in statements:
            admin(statement)
        granted += statements
    raise AssertionError(granted)


def test_a_role_that_gets_what_is_printed_can_run_postgres(
    run_cli: RunCLI, tmp_path: Path, postgres_role: tuple[Admin, str]
) -> None:
    admin, url = postgres_role
    admin('create table public."Kept" (id bigint primary key, name text)')
    admin("create table public.whole (id bigint)")
    admin(f'alter role "{urlsplit(url).username}" set default_transaction_read_only = on')
    write_to(tmp_path, "postgres", url, "public.Kept")
    granted = grant_what_is_printed(run_cli, tmp_path, admin)
    assert any('on "public"."Kept"' in statement and "insert" in statement for statement in granted), granted
    assert any(statement.startswith("alter table") for statement in granted), granted
    done = run_cli(["run", "pipeline.yaml"], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.one_of
@pytest.mark.parametrize("is_there", [False, True])
def test_a_role_that_gets_what_is_printed_has_a_run_store(
    run_cli: RunCLI, tmp_path: Path, postgres_role: tuple[Admin, str], postgres_url: str, is_there: bool
) -> None:
    admin, url = postgres_role
    if is_there:  # somebody else's
        Store.open(postgres_url).close()
    admin(f'alter role "{urlsplit(url).username}" set default_transaction_read_only = on')
    write_to(tmp_path, "duckdb", url, "merged")
    document = json.loads((tmp_path / "pipeline.yaml").read_text())
    document |= {"store": url, "destination": {"connector": "duckdb", "config": {"path": "x.duckdb"}}}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(document))
    granted = grant_what_is_printed(run_cli, tmp_path, admin)
    assert any("._syncblocks_pipeline_run to" in statement for statement in granted) is is_there
    done = run_cli(["run", "pipeline.yaml"], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_read_only", [False, True])
def test_a_run_that_lacks_privileges_says_who_knows_them(
    run_cli: RunCLI, tmp_path: Path, postgres_role: tuple[Admin, str], is_read_only: bool
) -> None:
    admin, url = postgres_role
    role = urlsplit(url).username
    admin(f'grant usage on schema public to "{role}"')
    if is_read_only:
        admin(f'grant create on schema public to "{role}"')
        admin(f'alter role "{role}" set default_transaction_read_only = on')
    write_to(tmp_path, "postgres", url, "merged")
    done = run_cli(["run", "pipeline.yaml"], tmp_path)
    said = "`default_transaction_read_only`" if is_read_only else "`syncblocks check` prints the missing privileges of"
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_a_schema_that_may_not_be_made_needs_no_privilege(
    run_cli: RunCLI, tmp_path: Path, postgres_role: tuple[Admin, str]
) -> None:
    admin, url = postgres_role
    parts = urlsplit(url)
    admin(f'grant temporary on database "{parts.path[1:]}" to "{parts.username}"')
    write_to(tmp_path, "postgres", url, "merged")
    document = json.loads((tmp_path / "pipeline.yaml").read_text())
    document["destination"]["config"] |= {"schema": "absent", "create_schemas": False}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(document))
    done = run_cli(["check", "pipeline.yaml"], tmp_path)
    assert (done.returncode, "grant create" in done.stderr) == (2, False), done.stderr
    assert "'absent', which does not exist" in done.stderr


@pytest.mark.full
def test_a_user_who_gets_what_is_printed_can_run_mariadb(
    run_cli: RunCLI, tmp_path: Path, mariadb_user: tuple[Admin, str]
) -> None:
    admin, url = mariadb_user
    admin("create table `Kept` (id bigint primary key, name longtext)")
    write_to(tmp_path, "mariadb", url, "Kept")
    granted = grant_what_is_printed(run_cli, tmp_path, admin)
    assert len(granted) == 1, granted
    done = run_cli(["run", "pipeline.yaml"], tmp_path)
    assert done.returncode == 0, done.stderr


def wait_until_gone(admin: Admin, role: str | None) -> None:
    """Wait for the server: a connection that its client has closed counts for a while."""
    asked = f"select count(*) from pg_stat_activity where usename = '{role}'"
    while admin(asked).fetchone() != (0,):
        time.sleep(0.01)


@pytest.mark.one_of
@pytest.mark.parametrize("is_source_too", [False, True])
def test_limits_of_a_role_that_may_end_a_run_are_warnings(
    run_cli: RunCLI, tmp_path: Path, postgres_role: tuple[Admin, str], is_source_too: bool
) -> None:
    """A role with one connection, or with 30 s for a statement, was "ok", and the run failed."""
    admin, url = postgres_role
    role, database = urlsplit(url).username, urlsplit(url).path[1:]
    admin(f'grant create, temporary on database "{database}" to "{role}"')
    admin(f'grant usage, create on schema public to "{role}"')
    write_to(tmp_path, "postgres", url, "merged")
    document = json.loads((tmp_path / "pipeline.yaml").read_text()) | {"concurrency": 2}
    if is_source_too:
        for name in ("new", "merged", "whole"):
            admin(f"create table public.{name} (id int primary key)")
            admin(f'grant select on public.{name} to "{role}"')
        document["source"] = {"connector": "postgres", "config": {"url": url, "schema": "public"}}
        document["streams"] = [{"stream": f"public.{name}"} for name in ("new", "merged", "whole")]
        document["destination"]["config"]["schema"] = "copies"
    (tmp_path / "pipeline.yaml").write_text(json.dumps(document))
    quiet = run_cli(["check", "pipeline.yaml", "--json"], tmp_path)
    assert (quiet.returncode, json.loads(quiet.stdout)["warnings"]) == (0, []), quiet.stderr

    needed = 8 if is_source_too else 4
    admin(f'alter role "{role}" connection limit {needed - 1}')
    admin(f'alter role "{role}" set statement_timeout = 30000')
    admin(f'alter database "{database}" connection limit {needed - 2}')
    wait_until_gone(admin, role)
    done = run_cli(["check", "pipeline.yaml", "--json"], tmp_path)
    warnings = json.loads(done.stdout)["warnings"]
    assert done.returncode == 0, done.stdout
    assert [(f"up to {needed} connections" in each, f'alter role "{role}"' in each) for each in warnings] == [
        (True, True),
        (True, False),
        (False, True),
    ]
    assert f"{role!r} may have {needed - 1} connections at a time" in warnings[0]
    assert f'alter database "{database}" connection limit' in warnings[1]
    assert "ends after 30s" in warnings[-1]
    assert "set statement_timeout = 0" in warnings[-1]
    wait_until_gone(admin, role)
    shown = run_cli(["check", "pipeline.yaml"], tmp_path)
    assert "warning: " in shown.stderr


@pytest.mark.full
def test_records_that_policies_may_hide_from_the_role_are_a_warning(
    run_cli: RunCLI, tmp_path: Path, postgres_role: tuple[Admin, str], postgres_url: str
) -> None:
    """They were filtered in silence, and a comparison of both sides found nothing."""
    admin, url = postgres_role
    role = urlsplit(url).username
    for name in ("hidden", "whole", "left_out"):
        admin(f"create table public.{name} (id int primary key)")
        admin(f"insert into public.{name} values (1), (2)")
    for name in ("hidden", "left_out"):
        admin(f"alter table public.{name} enable row level security")
    admin(f'create policy one on public.hidden to "{role}" using (id = 1)')
    admin(f'grant usage on schema public to "{role}"')
    admin(f'grant select on all tables in schema public to "{role}"')

    def warned(by: str) -> list[str]:
        document = {
            "source": {"connector": "postgres", "config": {"url": by}},
            "destination": {"connector": "duckdb", "config": {"path": "x.duckdb"}},
            "streams": [{"stream": "public.hidden"}, {"stream": "public.whole"}],
        }
        (tmp_path / "pipeline.yaml").write_text(json.dumps(document))
        found = []
        for command in ("check", "plan"):
            done = run_cli([command, "pipeline.yaml", "--json"], tmp_path)
            assert done.returncode == 0, done.stderr
            found.append([each for each in json.loads(done.stdout)["warnings"] if "row level security" in each])
        assert found[0] == found[1]
        return found[0]

    (warning,) = warned(url)
    assert warning.startswith("public.hidden: ")
    assert warned(postgres_url) == [], "its owner sees all"
    admin(f'alter role "{role}" bypassrls')
    assert warned(url) == []


def test_a_run_store_that_cannot_be_made_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with open_folder() as folder:
        file = write_shop(folder)
        file.write_text(file.read_text().replace("warehouse.duckdb", "out/warehouse.duckdb"))
        (folder / "out").mkdir()
        for name, mode in {"data": 0o755, "out": 0o777}.items():
            (folder / name).chmod(mode)
        folder.chmod(0o555)
        invoke(["check", str(file)])  # reads what nobody could not
        with as_nobody():
            code = invoke(["check", str(file)])
        said = capsys.readouterr()
    assert (code, f"error: run store: run store {folder}/.syncblocks/store.db cannot be written" in said.err) == (
        1,
        True,
    )
