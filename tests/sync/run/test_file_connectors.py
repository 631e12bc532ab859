"""A connector of a project's own: a class in a file beside the pipeline file, without a package or an entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.callbacks.loader import load_file
from syncblocks.connectors.registry import connector_class, settings_model
from syncblocks.sync.cli import invoke
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.session import open_session
from tests.conftest import RunCLI
from tests.contracts.test_write_a_connector import files_of_the_tutorial
from tests.sync.cli.cli_pipelines import rows


def project(folder: Path, source: str = "./own/feather.py:FeatherSource", **destination: Any) -> Path:
    """Write the connector of the documentation into a folder, a table for it, and a pipeline."""
    code = files_of_the_tutorial()["feather.py"]
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "feather.py").write_text(code.replace("import json\n", "import json\n\nimport helper\n", 1))
    (folder / "own" / "helper.py").write_text("")
    (folder / "tables").mkdir()
    people = pa.table({"id": [1, 2], "name": ["Ada", "Grace"]}).replace_schema_metadata({"key": '["id"]'})
    with pa.ipc.new_file(folder / "tables" / "people.arrow", people.schema) as writer:
        writer.write_table(people)
    document = {
        "source": {"connector": source, "config": {"path": "tables"}},
        "destination": destination or {"connector": "duckdb", "config": {"path": "warehouse.duckdb"}},
        "streams": [{"stream": "*"}],
    }
    file = folder / "p.yaml"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.full
def test_a_source_in_a_file_is_found_from_the_pipeline_files_folder(run_cli: RunCLI, tmp_path: Path) -> None:
    project(tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for command in ("plan", "check", "run", "verify"):
        done = run_cli([command, "../project/p.yaml"], elsewhere)
        assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path / "project", "select id, name from people order by id") == [(1, "Ada"), (2, "Grace")]
    shown = run_cli(["connectors", "../project/own/feather.py:FeatherSource", "--json"], elsewhere)
    assert list(json.loads(shown.stdout)["source"]["settings"])
    assert "destination" not in json.loads(shown.stdout)


def test_both_ends_may_be_classes_of_files_and_blocks_are_named_after_the_file(tmp_path: Path) -> None:
    end = {"connector": "own/feather.py:FeatherDestination", "config": {"path": "copies"}}
    (tmp_path / "copies").mkdir()
    pipeline = load_pipeline(project(tmp_path, **end))
    assert (pipeline.source.block, pipeline.destination.block) == ("load_feather", "export_feather")
    assert run_pipeline(pipeline).status == "success"
    (written,) = (tmp_path / "copies").glob("*.arrow")
    with pa.ipc.open_file(written) as file:
        assert file.read_all().column("name").to_pylist() == ["Ada", "Grace"]


@pytest.mark.parametrize("is_ours", [False, True])
def test_whether_a_source_has_a_log_shows_in_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_ours: bool
) -> None:
    file = project(tmp_path)
    document = json.loads(file.read_text())
    if is_ours:
        (tmp_path / "records").mkdir()
        (tmp_path / "records" / "people.csv").write_text("id\n1\n")
        document["source"] = {"connector": "csv", "config": {"path": "records"}}
    document["streams"] = [{"stream": "*", "replication_method": "LOG_BASED"}]
    file.write_text(json.dumps(document, indent=1))
    line = 1 + file.read_text().splitlines().index('   "replication_method": "LOG_BASED"')
    with pytest.raises(ConfigError, match=r"does not have a log that is read.*INCREMENTAL") as raised:
        run_pipeline(load_pipeline(file))
    assert f":{line}: streams[0].replication_method" in str(raised.value)
    assert invoke(["check", str(file)]) == 2
    assert "does not have a log that is read" in capsys.readouterr().err


def test_a_destination_without_a_ledger_may_be_in_a_file(tmp_path: Path) -> None:
    outside = Path(__file__).parents[2] / "contracts" / "outside.py"
    end = {"connector": f"{outside}:OutsideDestination", "config": {"store": "s"}}
    file = project(tmp_path, **end)
    file.write_text(json.dumps({**json.loads(file.read_text()), "on_lossy": "cast"}))  # it keeps integers of 32 bits
    assert run_pipeline(file).status == "success"
    (module,) = {connector_class(end["connector"], "destination").__init__.__globals__["STORES"]["s"]}
    assert [record["name"] for record in module.tables["people"]] == ["Ada", "Grace"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.py:Source", "there is no file .*/gone.py"),
        ("own/feather.py:FeatherSourc", r"has no class 'FeatherSourc'; did you mean 'FeatherSource'\? Allowed: "),
        ("own/feather.py:", "has no class ''; allowed: .*FeatherSource"),
        ("own/feather.py:FeatherDestination", "class FeatherDestination is not a source: it lacks discover, read"),
        ("own/feather.py:read_table", "has no class 'read_table'"),
        ("own/broken.py:Source", "broken.py:2 does not load: ZeroDivisionError"),
        ("own/typo.py:Source", "typo.py:1 does not load: SyntaxError"),
        ("own/former.py:Source", r"use field_facts\.facts_of\(field\)\.unseen, which"),
        ("own/leaves.py:Source", "leaves.py:1 does not load: SystemExit"),
        ("own/feather.p:FeatherSource", "there is no such source connector"),
    ],
)
def test_a_file_that_has_no_such_source_is_told_with_its_place(tmp_path: Path, source: str, message: str) -> None:
    file = project(tmp_path, source)
    (tmp_path / "own" / "broken.py").write_text("x = 1\ny = 1 / 0\n")
    (tmp_path / "own" / "typo.py").write_text("def (\n")
    (tmp_path / "own" / "leaves.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "own" / "former.py").write_text("from syncblocks.connectors.stream import UNSEEN\n")
    with pytest.raises(ConfigError, match=message) as wrong:
        open_session(load_pipeline(file))
    assert wrong.value.key == "source.connector"


def test_a_file_that_was_changed_is_executed_anew(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("class A:\n    discover = read = close = settings = print\n")
    assert settings_model("own.py:A", "source", tmp_path) is print
    assert settings_model("own.py:A", "destination", tmp_path) is None
    file.write_text("class A:\n    discover = read = close = print\n    settings = None\n")
    assert settings_model("own.py:A", "source", tmp_path) is None


def test_variables_of_an_earlier_run_do_not_choose_the_file(tmp_path: Path) -> None:
    file = project(tmp_path, "{{ variables('code') }}")
    document = json.loads(file.read_text()) | {"variables": {"code": "own/feather.py:FeatherSource"}}
    file.write_text(json.dumps(document))
    pipeline = load_pipeline(file, recorded={"code": "/elsewhere/evil.py:Source"})
    assert pipeline.source.connector == "own/feather.py:FeatherSource"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("self", "TypeError: .*takes 1 positional argument"),
        ("self, config, folder", r"KeyError: 'nope', raised at .*made\.py:2"),
    ],
)
def test_a_class_that_cannot_be_made_is_an_error_of_that_class(tmp_path: Path, made: str, said: str) -> None:
    project(tmp_path, "made.py:Made")
    (tmp_path / "made.py").write_text(
        f"class Made:\n    def __init__({made}): config['nope']\n"
        "    def discover(self): ...\n    def read(self): ...\n    def close(self): ...\n"
    )
    with pytest.raises(ConfigError, match=rf"class Made\(config, folder\) cannot be created: {said}"):
        open_session(load_pipeline(tmp_path / "p.yaml"))


def test_a_connector_does_not_get_the_helpers_of_a_callback_file_that_loads_at_the_same_time(tmp_path: Path) -> None:
    for folder in ("callbacks", "connectors"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper_of_both.py").write_text(f"NAME = {folder!r}\n")
    (tmp_path / "connectors" / "mine.py").write_text(
        "import helper_of_both\nclass Mine:\n    helper = helper_of_both.NAME\n"
    )
    alerts = tmp_path / "callbacks" / "alerts.py"
    alerts.write_text(
        "import threading\n"
        "from pathlib import Path\n"
        "import helper_of_both\n"
        "from syncblocks.connectors.file_classes import class_of_file\n"
        "found = []\n"
        f"loading = lambda: found.append(class_of_file('mine.py:Mine', Path({str(tmp_path / 'connectors')!r})))\n"
        "other = threading.Thread(target=loading)\n"
        "other.start()\n"
        "other.join(0.2)  # it waits until this file is executed\n"
        "@callback\n"
        "def tell(**kwargs):\n"
        "    other.join()\n"
        "    return found[0].helper\n"
    )
    (tell,) = load_file(alerts).functions
    assert tell.function() == "connectors"
