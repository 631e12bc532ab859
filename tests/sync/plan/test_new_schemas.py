"""Schemas and databases that a run would create: `plan` lists them, and `create_schemas: false` forbids them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks.sync.cli import invoke
from tests.sync.run.targets import open_target


@pytest.mark.one_of
@pytest.mark.parametrize("kind", ["postgres", "mysql", "duckdb"])
def test_a_schema_that_would_be_created_is_listed_and_can_be_forbidden(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    for name in ("orders", "users"):
        (tmp_path / "data" / f"{name}.csv").write_text("id\n1\n")
    with open_target(kind, tmp_path) as target:
        own = target.url.rpartition("/")[2]
        document: dict[str, Any] = {
            "source": {"connector": "csv", "config": {"path": "data"}},
            "destination": target.document,
            "streams": [{"stream": "*", "destination_table": "us_" + own + "_us.{{ stream }}"}],
        }
        file = tmp_path / "p.yaml"

        def run(command: str, **config: Any) -> tuple[int, str, str]:
            file.write_text(yaml.safe_dump(document | {"destination": {**target.document, "config": config}}))
            code = invoke([command, str(file)])
            return code, *capfd.readouterr()

        config = target.document["config"]
        word, schema = "database" if kind == "mysql" else "schema", f"us_{own}_us"
        try:
            code, out, err = run("plan", **config)
            assert (code, out.count(f"creates {word} {schema!r}")) == (0, 1), out + err
            for command in ("plan", "run"):
                code, out, err = run(command, **config, create_schemas=False)
                assert (code, "create_schemas: false" in err, schema in err) == (2, True, True), out + err
            assert not schemas(target, schema)
            assert run("run", **config)[0] == 0
            assert schemas(target, schema)
            code, out, err = run("run", **config, create_schemas=False)
            assert code == 0, out + err
            assert "creates" not in run("plan", **config)[1]
        finally:
            if kind != "duckdb":
                target.query(f"drop schema if exists {schema}" + " cascade" * (kind == "postgres"))


def schemas(target: Any, schema: str) -> list[Any]:
    if target.kind == "duckdb" and not (target.folder / "target.duckdb").exists():
        return []
    found: list[Any] = target.query(f"select 1 from information_schema.schemata where schema_name = '{schema}'")
    return found
