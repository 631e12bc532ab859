"""A source role of LOG_BASED that may not see all records is reported before a run."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.sync.run.log_based import Logged
from tests.zygote import Zygote


@pytest.fixture
def role(log_url: str) -> Iterator[str]:
    """A role that may create tables, publications and slots in the database of `log_url`."""
    admin, name = Logged(Path(), log_url), f"role_{uuid.uuid4().hex[:12]}"
    ((database,),) = admin.sql("select quote_ident(current_database())")
    admin.sql(f"create role {name} login replication", f"grant create on database {database} to {name}")
    admin.sql(f"grant usage, create on schema public to {name}")
    yield name
    admin.sql(f"drop owned by {name} cascade", f"drop role {name}")


def reading_as(role: str, tmp_path: Path, log_url: str) -> Logged:
    """Return a pipeline that merges all tables into DuckDB and reads them as this role."""
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["source"]["config"]["user"] = role
    logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED"}]
    return logged


HALF = """create table t (id int primary key); insert into t select generate_series(1, 20);
alter table t owner to {role}; alter table t enable row level security; create policy half on t using (id < 10)"""
FORCE, UNFORCE = "alter table t force row level security", "alter table t no force row level security"


@pytest.mark.full
def test_a_table_is_refused_while_row_level_security_hides_records_of_it(
    tmp_path: Path, log_url: str, role: str, run_cli: RunCLI
) -> None:
    logged = reading_as(role, tmp_path, log_url)
    logged.sql(HALF.format(role=role), FORCE)
    done = run_cli(["check", logged.file], tmp_path)
    assert done.returncode == 2
    for words in ("public.t", f'"{role}"', f'`alter role "{role}" bypassrls`', 'table "public"."t" no force row level'):
        assert words in done.stderr
    with pytest.raises(ConfigError, match="row level security"):
        logged.run()
    logged.sql(UNFORCE)
    logged.succeed()
    assert len(logged.merged("t")) == 20, "its owner sees all records of a table without FORCE"
    logged.sql(FORCE, "delete from t where id > 1")
    assert "row level security" in logged.refused()
    logged.sql(f"alter role {role} bypassrls")
    logged.succeed()
    assert logged.merged("t") == [(1,)]


@pytest.mark.full
def test_a_copy_fails_if_row_level_security_begins_to_hide_records_after_the_plan(
    tmp_path: Path, log_url: str, role: str, zygote: Zygote
) -> None:
    logged = reading_as(role, tmp_path, log_url)
    logged.sql(HALF.format(role=role), FORCE, f"alter role {role} bypassrls")
    process = zygote.start(tmp_path, ("run", logged.file.name), failpoint="log.exported:1:stop")
    while not process.has_ended() and Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        pass
    logged.sql(f"alter role {role} nobypassrls")
    process.signal(signal.SIGCONT)
    assert process.wait() == 1
    assert "row-level security" in process.log()
