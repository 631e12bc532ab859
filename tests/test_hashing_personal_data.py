"""The page about personal data: its pipeline, its commands, its SQL and its Python, run as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.conftest import RunCLI
from tests.docs import examples

PAGE = "docs/how-to/hashing-personal-data.md"
CUSTOMERS = "email,phone,first_name\nann@x.org,030123456,Ann\nbob@x.org,12,Bob\n"
ORDERS = "id,email\n1,ann@x.org\n2,ann@x.org\n3,bob@x.org\n"


@pytest.mark.full
def test_the_warehouse_joins_what_it_cannot_read(
    tmp_path: Path, run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "data" / "orders.csv").write_text(ORDERS)
    (pipeline,) = examples("yaml", page=PAGE)
    (tmp_path / "shop.yaml").write_text(pipeline.text)
    key, commands, change = (example.text for example in examples("console", page=PAGE))
    subprocess.run(["sh", "-ec", key], cwd=tmp_path, check=True)
    said = []
    for line in commands.splitlines():
        done = run_cli(line.split()[1:], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert not re.search("ann@|bob@|Ann|Bob|030123", "".join(said))
    (sql,) = examples("sql", page=PAGE)
    (python,) = examples("python", page=PAGE)
    names: dict[str, object] = {}
    exec(python.text, names)
    with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
        assert connection.sql(sql.text).fetchall() == [("******456", 2), ("**", 1)]
        found = {email for (email,) in connection.sql("select email from orders").fetchall()}
    masked = names["masked"]
    assert callable(masked)
    assert found == {masked("ann@x.org"), masked("bob@x.org")}
    subprocess.run(["sh", "-ec", key.replace("mkdir -m 700 -p", "ls")], cwd=tmp_path, check=True)
    assert run_cli(["plan", "shop.yaml"], tmp_path).returncode == 2
    assert run_cli(change.split()[1:], tmp_path).returncode == 0
