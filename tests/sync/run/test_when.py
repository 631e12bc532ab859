"""`when` of streams and transformers: decided in the plan, by what is known before the run begins."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline, preview, run_pipeline
from syncblocks.connectors.memory import database
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.state.stream_state import set_state
from tests.conftest import RunCLI
from tests.sync.pipelines import statuses

MARK = "@transformer\ndef mark(df):\n    df['v'] = df['v'] + '!'\n    return df\n"
AT = datetime(2024, 3, 1, 5, tzinfo=UTC)


def document(*streams: dict[str, Any], **keys: Any) -> dict[str, Any]:
    table = {"columns": {"id": "int64", "v": "string"}, "key": ["id"], "records": [{"id": 1, "v": "x"}]}
    return {
        "pipeline": "asked",
        "source": {"connector": "memory", "config": {"tables": dict.fromkeys(("crm.a", "crm.b"), table)}},
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": [*streams] or [{"stream": "*"}],
        **keys,
    }


def planned(folder: Path, given: dict[str, Any], **loading: Any) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the streams of a plan with their transformers, and the streams that are left out."""
    with opened(load_pipeline(given, folder=folder, **loading)) as session, existing_store(session.pipeline) as store:
        plan = make_plan(session, store)
    return {each.name: each.transformers for each in plan.streams}, list(plan.left_out)


@pytest.mark.parametrize(
    ("when", "loading"),
    [
        ("region == 'eu'", {"variables": {"region": "eu"}}),
        ("{{ variables('region') in ['eu', 'us'] }}", {"variables": {"region": "us"}}),
        ("env == 'prod'", {"environ": {"ENV": "prod"}}),
        ("ds == '2024-03-01' and hr == '05'", {"execution_date": AT}),
        ("execution_partition == 'nightly/20240301T050000'", {"execution_date": AT, "trigger": "nightly"}),
        ("trigger_name == 'nightly' and pipeline_uuid == 'asked'", {"trigger": "nightly"}),
        ("interval_seconds == 3600", {"interval": (AT, AT.replace(hour=6))}),
    ],
)
def test_a_stream_is_part_of_the_runs_for_which_its_condition_is_true(
    when: str, loading: dict[str, Any], tmp_path: Path
) -> None:
    given = document({"stream": "*"}, {"stream": "crm.b", "when": when}, variables={"region": "none"})
    assert planned(tmp_path, given, **loading) == ({"crm.a": (), "crm.b": ()}, [])
    other = {"interval": (AT, AT.replace(hour=7))} if "interval" in loading else {}
    assert planned(tmp_path, given, **other) == ({"crm.a": ()}, ["crm.b"])


def test_later_entries_refine_and_null_asks_nothing(tmp_path: Path) -> None:
    given = document({"stream": "*", "when": "false"}, {"stream": "crm.b", "when": "stream == 'crm.b'"})
    assert planned(tmp_path, given) == ({"crm.b": ()}, ["crm.a"])
    given["streams"][1]["when"] = None
    assert planned(tmp_path, given) == ({"crm.b": ()}, ["crm.a"])


def test_bare_names_and_tables_are_what_conditions_see(tmp_path: Path) -> None:
    (tmp_path / "mark.py").write_text(MARK)
    given = document(
        {"stream": "*", "when": "stream in ['a', 'b']", "destination_table": "raw_{{ stream }}"},
        stream_names="bare",
        transformers=[
            {"file": "mark.py", "when": "destination_table == 'raw_a'"},
            {"rename": {"v": "w"}, "streams": ["crm.b"], "when": "stream != 'b'"},
        ],
    )
    assert planned(tmp_path, given) == ({"crm.a": ("mark",), "crm.b": ()}, [])


def test_what_is_left_out_is_told_and_nothing_left_is_a_success(tmp_path: Path, run_cli: RunCLI) -> None:
    given = document({"stream": "*", "when": "region == 'eu'"}, variables={"region": "us"})
    (tmp_path / "asked.yaml").write_text(json.dumps(given))
    shown = json.loads(run_cli(["plan", "asked.yaml", "--json"], tmp_path).stdout)
    assert (shown["streams"], shown["left_out"]) == ([], dict.fromkeys(("crm.a", "crm.b"), "region == 'eu'"))
    done = run_cli(["run", "asked.yaml", "--stream", "crm.b"], tmp_path)
    assert done.returncode == 0
    assert "stream 'crm.b' is left out of this run: its `when` is false: region == 'eu'" in done.stderr
    assert "crm.a" not in done.stderr
    with pytest.raises(ConfigError, match=r"'crm\.b' is left out of this run"):
        preview(tmp_path / "asked.yaml", "crm.b")
    ran = run_pipeline(tmp_path / "asked.yaml", variables={"region": "eu"})
    assert statuses(ran) == {"crm.a": "success", "crm.b": "success"}


@pytest.mark.parametrize(("command", "said"), [("count", "counted"), ("verify", "compared")])
def test_commands_that_look_at_both_sides_name_what_they_leave_out(
    command: str, said: str, tmp_path: Path, run_cli: RunCLI
) -> None:
    given = document({"stream": "*"}, {"stream": "crm.b", "when": "region == 'eu'"}, variables={"region": "us"})
    (tmp_path / "asked.yaml").write_text(json.dumps(given))
    run_pipeline(tmp_path / "asked.yaml", variables={"region": "eu"})
    shown = json.loads(run_cli([command, "asked.yaml", "--json"], tmp_path).stdout)
    assert ([each["stream"] for each in shown["streams"]], shown["left_out"]) == (
        ["crm.a"],
        {"crm.b": "region == 'eu'"},
    )
    done = run_cli([command, "asked.yaml", "--stream", "crm.b"], tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"stream 'crm.b' is not {said}: its `when` is false: region == 'eu'"
    assert "crm.a" not in done.stdout


def test_the_state_of_a_stream_is_there_also_when_its_condition_is_false(tmp_path: Path) -> None:
    given = document({"stream": "*", "when": "hr == '03'"})
    given["streams"][0] |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    with opened(load_pipeline(given, folder=tmp_path, execution_date=AT)) as session:
        assert set_state(session, None, "crm.b", {"id": "1"}).bookmark == {"id": 1}


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("regoin == 'eu'", "'regoin' is not defined.*did you mean 'region'"),
        ("status == 'success'", "'status' has a value only after the run has begun"),
        ("block_run.rows > 0", "'block_run' has a value only after the run has begun"),
        ("region ==", "not a valid template"),
        ("a {{ region }}", "not a valid template"),
        ("env_var('NOT_THERE_7')", "'NOT_THERE_7' is not set"),
    ],
)
@pytest.mark.parametrize("place", ["streams", "transformers"])
def test_a_wrong_condition_is_told_when_the_file_is_loaded(place: str, when: str, message: str) -> None:
    keys: dict[str, Any] = {"transformers": [{"rename": {"v": "w"}}], "variables": {"region": "eu"}}
    given = document(**keys)
    given[place][0]["when"] = when
    with pytest.raises(ConfigError, match=message) as raised:
        load_pipeline(given)
    assert raised.value.key == f"{place}[0].when"


def test_what_cannot_be_compared_names_the_place_and_the_stream(tmp_path: Path) -> None:
    given = document({"stream": "*", "when": "limit > 'x'"}, variables={"limit": 1})
    with pytest.raises(ConfigError, match=r"streams\[0\]\.when: cannot be filled.*crm\.a"):
        planned(tmp_path, given)


def test_an_interval_that_a_condition_uses_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"when: needs an interval"):
        planned(tmp_path, document({"stream": "*", "when": "interval_seconds > 60"}))


def test_a_retry_decides_as_its_run_did(tmp_path: Path) -> None:
    (tmp_path / "mark.py").write_text(MARK)
    when = "region == 'eu' and trigger_name == 'nightly' and ds == '2024-03-01'"
    streams = [{"stream": "*"}, {"stream": "crm.b", "when": when}]
    transformers = [{"file": "mark.py", "when": when}]
    given = document(*streams, transformers=transformers, variables={"region": "us"}, concurrency=1)
    given["source"]["config"] |= {"fail_at": {"crm.b": 1}, "fail_kind": "fatal", "fail_times": 1}
    given["destination"] = {"connector": "memory", "config": {"database": "when-retry"}}
    loaded = load_pipeline(given, folder=tmp_path, variables={"region": "eu"}, trigger="nightly", execution_date=AT)
    assert statuses(run_pipeline(loaded)) == {"crm.a": "success", "crm.b": "failure"}
    given["source"]["config"] |= {"fail_at": {}}
    assert statuses(run_pipeline(load_pipeline(given, folder=tmp_path), retry=True)) == {"crm.b": "success"}
    (table,) = (each for name, each in database("when-retry").tables.items() if name.endswith("b"))
    assert table.to_pylist() == [{"id": 1, "v": "x!"}]
