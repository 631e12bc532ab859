"""The pipeline file: what it says is what is loaded."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.settings import Settings, parse_settings
from syncblocks.sync.config import (
    Pipeline,
    config_error_from_connector,
    exact_name,
    exact_pattern,
    glob_matches,
    is_glob,
    load_pipeline,
    pipeline_json_schema,
    render_destination_table,
    resolve_references,
)
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.session import open_session
from tests.budget import within

MOMENT = datetime(2023, 4, 26, 20, 28, 17, tzinfo=UTC)
ENVIRON = {"CRM_URL": "postgresql://crm:pa%40ss-word@db.example.com/crm", "SYNCBLOCKS_SECRETS_DIR": "/nonexistent"}

SAMPLE = """\
pipeline: crm_to_warehouse
variables: {region: eu}
concurrency: 4
allow_blocks_to_fail: false
retries: 0
retry_delay_s: 10
timeout_s: null
drain_s: 120
store: sqlite:///.syncblocks/store.db
source:
  block: load_crm
  connector: postgres
  config: {url: "{{ env_var('CRM_URL') }}"}
transformers:
  - block: clean_names
    file: transformers/clean_names.py
    streams: ["public.users"]
    rename: {id: user_id}
destination:
  block: export_warehouse
  connector: duckdb
  config: {path: warehouse.duckdb}
streams:
  - stream: "public.*"
  - stream: public.audit_log
    selected: false
  - stream: public.users
    destination_table: dim_users_v1
    replication_method: INCREMENTAL
    bookmark_properties: [updated_at]
    key_properties: [id]
    unique_conflict_method: UPDATE
    write_disposition: merge
    columns: {exclude: [password_hash]}
callbacks:
  - block: alerts
    file: callbacks/alerts.py
    on: [load_crm, export_warehouse]
    streams: ["*"]
    timeout_s: 60
    attempts: 5
"""

SMALL = """\
source: {connector: sqlite, config: {path: a.db}}
destination: {connector: duckdb, config: {path: b.duckdb}}
streams:
  - stream: "*"
"""

Load = Callable[..., Pipeline]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a pipeline file beside the files that the sample names, and load it."""
    for folder, name in (("transformers", "clean_names.py"), ("callbacks", "alerts.py")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("")

    def write_and_load(text: str, **arguments: Any) -> Pipeline:
        path = tmp_path / "crm.yaml"
        path.write_text(text, encoding="utf-8")
        return load_pipeline(path, **{"environ": ENVIRON, "execution_date": MOMENT, **arguments})

    return write_and_load


def test_the_sample_of_the_contract_loads_and_every_key_arrives(load: Load, tmp_path: Path) -> None:
    pipeline = load(SAMPLE)
    assert pipeline.pipeline == "crm_to_warehouse"
    assert pipeline.variables == {"region": "eu"}
    assert (pipeline.concurrency, pipeline.allow_blocks_to_fail, pipeline.retries) == (4, False, 0)
    assert (pipeline.retry_delay_s, pipeline.timeout_s, pipeline.drain_s) == (10, None, 120)
    assert pipeline.source.block == "load_crm"
    assert pipeline.source.config == {"url": ENVIRON["CRM_URL"]}
    assert pipeline.transformers[0].rename == {"id": "user_id"}
    assert pipeline.transformers[0].streams == ("public.users",)
    assert pipeline.destination.connector == "duckdb"
    users = pipeline.streams[2]
    assert users.destination_table == "dim_users_v1"
    assert users.bookmark_properties == ("updated_at",)
    assert users.columns is not None
    assert users.columns.exclude == ("password_hash",)
    assert pipeline.streams[1].selected is False
    assert pipeline.callbacks[0].on == ("load_crm", "export_warehouse")
    assert pipeline.store_url == f"sqlite:///{tmp_path}/.syncblocks/store.db"
    assert pipeline.path == tmp_path / "crm.yaml"
    assert pipeline.folder == tmp_path


def test_a_small_file_gets_the_defaults_of_the_contract(load: Load, tmp_path: Path) -> None:
    pipeline = load(SMALL)
    assert pipeline.pipeline == "crm"
    assert pipeline.source.block == "load_sqlite"
    assert pipeline.destination.block == "export_duckdb"
    assert pipeline.concurrency == "auto"
    assert (pipeline.retries, pipeline.retry_delay_s, pipeline.drain_s) == (0, 10, 120)
    assert pipeline.store is None
    assert pipeline.store_url == f"sqlite:///{tmp_path}/.syncblocks/store.db"
    assert pipeline.spool_limit == 2_000_000_000
    assert pipeline.callbacks == ()
    assert (pipeline.trigger, pipeline.execution_partition) == ("0", "0/20230426T202817")
    assert (pipeline.ds, pipeline.hr) == ("2023-04-26", "20")


def test_a_callback_block_without_a_name_is_named_after_its_file_and_watches_streams(load: Load) -> None:
    callback = load(SMALL + "callbacks:\n  - file: callbacks/alerts.py\n").callbacks[0]
    assert (callback.block, callback.on, callback.timeout_s, callback.attempts) == ("alerts", ("stream",), 60, 5)


def test_a_key_left_empty_has_its_default(load: Load) -> None:
    pipeline = load(SMALL + "callbacks:\ntransformers:\nretries:\nvariables:\npipeline: ~\nstore:\nconcurrency:\n")
    assert (pipeline.callbacks, pipeline.transformers, pipeline.retries) == ((), (), 0)
    assert (pipeline.pipeline, pipeline.concurrency) == ("crm", "auto")


def test_an_entry_tells_a_null_from_a_key_that_is_not_there(load: Load) -> None:
    entries = load(SMALL + "  - {stream: a, destination_table: null}\n  - stream: b\n").streams
    assert entries[1].model_fields_set == {"stream", "destination_table"}
    assert entries[2].model_fields_set == {"stream"}
    assert entries[1].destination_table is None
    assert entries[2].destination_table is None


def test_places_are_found_for_nested_and_missing_keys(load: Load, tmp_path: Path) -> None:
    pipeline = load(SAMPLE)
    path = str(tmp_path / "crm.yaml")
    assert pipeline.where(("streams", 2, "stream")) == (path, 27)
    assert pipeline.where(("source", "config", "url")) == (path, 13)
    assert pipeline.where(("streams", 2, "columns", "exclude", 0)) == (path, 34)
    assert pipeline.where(("source", "config", "schema", "deeper")) == (path, 13)
    assert pipeline.where(("nothing",)) == (path, 1)


def test_a_relative_path_counts_from_the_file_wherever_the_command_is_started(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(SAMPLE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    pipeline = load_pipeline("../crm.yaml", environ=ENVIRON)
    monkeypatch.chdir(tmp_path)
    assert pipeline.resolve("callbacks/alerts.py").is_file()
    assert pipeline.path.resolve() == tmp_path / "crm.yaml"
    assert Path(pipeline.store_url.removeprefix("sqlite:///")).resolve() == tmp_path / ".syncblocks" / "store.db"


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("sqlite:///runs.db", "sqlite:///{folder}/runs.db"),
        ("sqlite:////var/runs.db", "sqlite:////var/runs.db"),
        ("sqlite:///runs.db?timeout=5", "sqlite:///{folder}/runs.db?timeout=5"),
        ("postgresql://u:secret-pw@h/db", "postgresql://u:secret-pw@h/db"),
        ("postgresql+psycopg://h/db", "postgresql+psycopg://h/db"),
        ("postgres://h/db", "postgresql://h/db"),
    ],
)
def test_a_store_is_a_url_whose_relative_path_counts_from_the_file(
    load: Load, tmp_path: Path, store: str, expected: str
) -> None:
    pipeline = load(f"{SMALL}store: {store}\n")
    assert pipeline.store == pipeline.store_url == expected.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("2GB", 2 * 10**9), ("1.5GiB", 3 * 2**29), ("500 MB", 5 * 10**8), ("10k", 10_000), ("0", 0), ("7", 7), ("3B", 3)],
)
def test_sizes_are_read_with_their_units(load: Load, text: str, size_bytes: int) -> None:
    assert load(f"{SMALL}spool_limit: {text}\n").spool_limit == size_bytes


def test_variables_of_the_command_line_win_and_are_never_interpolated(load: Load) -> None:
    text = SMALL + "variables: {region: eu, day: \"{{ env_var('GONE') }}\"}\n"
    pipeline = load(text, variables={"region": "us", "day": "{{ secret('x') }}", "new": [1, {"a": None}]})
    assert pipeline.variables == {"region": "us", "day": "{{ secret('x') }}", "new": [1, {"a": None}]}
    assert pipeline.variable_references == pipeline.variables


def test_a_lone_call_of_variables_keeps_the_kind_of_the_value(load: Load) -> None:
    text = SMALL.replace("path: a.db", "path: a.db, n: \"{{ variables('n') }}\", t: \"x{{ variables('n') }}\"")
    text += "variables: {n: 3, on: true}\nretries: \"{{ variables('n') }}\"\n"
    text += "allow_blocks_to_fail: \"{{ variables('on') }}\"\n"
    pipeline = load(text)
    assert pipeline.source.config == {"path": "a.db", "n": 3, "t": "x3"}
    assert (pipeline.retries, pipeline.allow_blocks_to_fail) == (3, True)


def test_numbers_and_booleans_may_come_from_the_environment(load: Load) -> None:
    text = SMALL + "concurrency: \"{{ env_var('N') }}\"\nallow_blocks_to_fail: \"{{ env_var('B', 'true') }}\"\n"
    text += "spool_limit: \"{{ env_var('S') }}\"\nretry_delay_s: \"{{ env_var('D') }}\"\n"
    pipeline = load(text, environ={"N": "3", "S": "5MB", "D": "1.5"})
    assert (pipeline.concurrency, pipeline.allow_blocks_to_fail) == (3, True)
    assert (pipeline.spool_limit, pipeline.retry_delay_s) == (5_000_000, 1.5)


def test_values_are_plain_text_after_interpolation(load: Load) -> None:
    text = SMALL.replace('stream: "*"', "stream: \"{{ variables('s') }}x\"") + "variables: {s: a}\n"
    pipeline = load(text)
    assert type(pipeline.streams[0].stream) is str
    assert type(load(SAMPLE).source.config["url"]) is str


def test_what_comes_from_env_var_or_secret_is_stored_as_its_reference(load: Load, tmp_path: Path) -> None:
    text = SMALL + (
        "variables:\n"
        "  plain: 1\n"
        '  day: "{{ ds }}"\n'
        "  token: \"{{ secret('tok') }}\"\n"
        "  nested: {a: [\"{{ env_var('TOK') }}-{{ ds }}\", 2]}\n"
    )
    environ = {"TOK": "env-token", "SYNCBLOCKS_SECRET_TOK": "secret-token"}
    pipeline = load(text, environ=environ)
    assert pipeline.variables == {
        "plain": 1,
        "day": "2023-04-26",
        "token": "secret-token",
        "nested": {"a": ["env-token-2023-04-26", 2]},
    }
    references = json.loads(json.dumps(pipeline.variable_references))
    assert references["token"] == {"$template": "{{ secret('tok') }}"}
    assert references["nested"]["$template"] == {"a": ["{{ env_var('TOK') }}-{{ ds }}", 2]}
    assert "token" not in json.dumps(references).replace('"token"', "")
    assert {"env-token", "secret-token"} <= pipeline.secret_values
    assert resolve_references(references, pipeline, environ) == pipeline.variables
    kwargs = {"event": {"$template": "{{ secret('tok') }}"}, "pipeline_run": {"id": 1, "variables": references}}
    resolved = resolve_references({**references, **kwargs}, pipeline, environ)
    assert resolved["event"] == {"$template": "{{ secret('tok') }}"}
    assert resolved["token"] == "secret-token"
    assert resolved["pipeline_run"] == {"id": 1, "variables": pipeline.variables}
    with pytest.raises(ConfigError, match="no secret 'tok'"):
        resolve_references(references, pipeline, {})


def test_a_run_that_is_tried_again_keeps_its_variables_and_looks_its_secrets_up_anew(load: Load) -> None:
    text = SMALL + "variables: {region: eu, token: \"{{ secret('tok') }}-{{ ds }}\"}\n"
    first = load(text, variables={"region": "us"}, environ={"SYNCBLOCKS_SECRET_TOK": "old-token"})
    recorded = json.loads(json.dumps(first.variable_references))
    changed = SMALL + "variables: {region: cn, token: \"{{ secret('tok') }}-{{ ds }}\", new: 1}\n"
    again = load(changed, recorded=recorded, environ={"SYNCBLOCKS_SECRET_TOK": "new-token"})
    assert again.variables == {"new": 1, "region": "us", "token": "new-token-2023-04-26"}
    assert again.variable_references == {**recorded, "new": 1}
    assert "new-token" in again.secret_values
    # What the file does not say any more, or never said, is not looked up.
    for said in ("none", "\"{{ secret('other') }}\""):
        with pytest.raises(
            ConfigError, match=r"variables\.token: its reference to an environment variable or a secret differs"
        ):
            load(changed.replace("\"{{ secret('tok') }}-{{ ds }}\"", said), recorded=recorded)
    with pytest.raises(ConfigError, match=r"its reference to an environment variable or a secret differs"):
        load(SMALL, recorded=recorded)


def test_variables_of_an_earlier_run_name_no_program(load: Load, tmp_path: Path) -> None:
    for name in ("own.py", "evil.py"):
        (tmp_path / name).write_text("@callback\ndef told(): pass\n")
    text = SMALL + (
        "store: \"sqlite:///{{ variables('f') }}.db\"\ncallbacks: [{block: told, file: \"{{ variables('f') }}.py\"}]\n"
        "transformers: [{file: \"{{ variables('f') }}.py\"}]\nvariables: {f: own}\n"
    )
    again = load(text, recorded={"f": "evil"})
    assert again.variables == {"f": "evil"}
    assert (again.callbacks[0].file, again.transformers[0].file) == ("own.py", "own.py")
    assert again.store_url.endswith("/own.db")
    assert load(text, variables={"f": "evil"}).callbacks[0].file == "evil.py"
    with pytest.raises(ConfigError, match="there is no variable 'f'"):
        load(text.replace("variables: {f: own}", "variables: {}"), recorded={"f": "evil"})
    tap = text.replace("connector: sqlite", "connector: \"{{ variables('c') }}\"")
    assert tap != text
    with pytest.raises(ConfigError, match="there is no variable 'c'"):
        load(tap, recorded={"c": "singer"})


def test_a_destination_table_that_names_the_stream_is_filled_in_per_stream(load: Load) -> None:
    text = SMALL + "    destination_table: \"{{ variables('p') }}_{{ stream | table }}\"\nvariables: {p: raw}\n"
    pipeline = load(text)
    template = pipeline.streams[0].destination_table
    assert template is not None
    assert render_destination_table(template, pipeline, "public.users") == "raw_users"
    assert render_destination_table(template, pipeline, "{{ ds }}") == "raw_{{ ds }}"
    assert render_destination_table("plain", pipeline, "public.users") == "plain"
    filled = load(SMALL + '    destination_table: "t_{{ ds }}_{{ pipeline.name }}"\n')
    assert filled.streams[0].destination_table == "t_2023-04-26_crm"


def test_default_variables_are_those_of_the_run(load: Load) -> None:
    text = SMALL + 'variables: {all: "{{ ds }} {{ hr }} {{ env }} {{ execution_partition }} {{ pipeline.uuid }}"}\n'
    zone = timezone(timedelta(hours=2))
    pipeline = load(text, trigger="207", execution_date=MOMENT.astimezone(zone), environ={"ENV": "prod"})
    assert pipeline.variables["all"] == "2023-04-26 20 prod 207/20230426T202817 crm"
    assert pipeline.execution_date == MOMENT
    assert pipeline.execution_date.utcoffset() == timedelta(0)


def test_without_an_execution_date_it_is_now(load: Load) -> None:
    assert abs(load(SMALL, execution_date=None).execution_date - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(ConfigError, match="time zone"):
        load(SMALL, execution_date=datetime(2023, 1, 1))  # noqa: DTZ001 - the naive one is the mistake


def test_every_known_secret_is_listed_and_none_is_in_the_representation(load: Load) -> None:
    pipeline = load(SAMPLE)
    assert ENVIRON["CRM_URL"] in pipeline.secret_values
    assert {"pa%40ss-word", "pa@ss-word"} <= pipeline.secret_values
    assert "ss-word" not in repr(pipeline)
    assert pipeline.warnings == ()


def test_a_secret_written_in_the_file_is_a_warning_with_its_place(load: Load) -> None:
    text = SMALL.replace("path: a.db", "path: a.db, password: hunter22").replace("b.duckdb", "'x://u:pass-1234@h'")
    pipeline = load(text)
    assert [warning.partition("crm.yaml:")[2][:26] for warning in pipeline.warnings] == [
        "1: source.config.password:",
        "2: destination.config.path",
    ]
    assert {"hunter22", "pass-1234"} <= pipeline.secret_values


def test_names_given_by_the_environment_are_no_secrets(load: Load) -> None:
    pipeline = load(SMALL.replace('"*"', "\"{{ env_var('S') }}.*\""), environ={"S": "public"})
    assert pipeline.streams[0].stream == "public.*"
    assert pipeline.secret_values == frozenset()


def test_anchors_and_merges_save_typing(load: Load) -> None:
    text = SMALL + (
        "  - &inc {stream: a, replication_method: INCREMENTAL, bookmark_properties: [t], key_properties: [id]}\n"
        "  - {<<: *inc, stream: b, key_properties: [x]}\n"
    )
    entry = load(text).streams[2]
    assert (entry.stream, entry.key_properties, entry.bookmark_properties) == ("b", ("x",), ("t",))


def test_a_complaint_of_a_connector_gets_its_place(load: Load) -> None:
    class Sample(Settings):
        path: str

    pipeline = load(SAMPLE.replace("{path: warehouse.duckdb}", "\n    path: x\n    pth: secret-thing"))
    with pytest.raises(ConnectorConfigError) as caught:
        parse_settings(Sample, pipeline.destination.config, "duckdb")
    error = config_error_from_connector(pipeline, "destination", caught.value)
    assert (error.line, error.key) == (24, "destination.config.pth")
    assert "did you mean 'path'" in str(error)
    with pytest.raises(ConnectorConfigError, match="did you mean 'path'"):
        parse_settings(Sample, {"path": "x", "folder": "x"}, "duckdb")
    no_url = ConnectorConfigError("cannot connect", connector="postgres", key="url")
    assert config_error_from_connector(pipeline, "destination", no_url).key == "destination.config"
    url = ConnectorConfigError(
        "config of connector 'postgres': url must begin with postgresql://", connector="postgres"
    )
    assert config_error_from_connector(pipeline, "destination", url).key == "destination.config"
    bare = config_error_from_connector(pipeline, "source", ConnectorConfigError(f"cannot use {ENVIRON['CRM_URL']}"))
    assert (bare.line, bare.key) == (12, "source.connector")
    assert "ss-word" not in str(bare)


def test_all_complaints_of_both_connectors_come_in_one_error(load: Load) -> None:
    text = (
        "source: {connector: postgres, config: {url: 'postgresql://h/d', prot: 1, settle_s: -1, range_bytes: few}}\n"
        "destination:\n  connector: csv\n  config:\n    pth: out\n    header: [1]\n    compression: zip\n"
        "streams: [{stream: a}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        open_session(load(text))
    found = [caught.value, *caught.value.others]
    assert [(error.line, error.key) for error in found] == [
        (1, "source.config.settle_s"),
        (1, "source.config.range_bytes"),
        (1, "source.config.prot"),
        (5, "destination.config.pth"),
        (6, "destination.config.header"),
        (7, "destination.config.compression"),
    ]
    assert str(caught.value).startswith("6 mistakes:\n")
    assert "did you mean 'port'?" in str(caught.value)


def test_a_value_of_several_types_is_one_complaint() -> None:
    class Sample(Settings):
        size: int | list[int]
        names: dict[str, int | bool] = {}

    with pytest.raises(ConnectorConfigError) as caught:
        parse_settings(Sample, {"size": "x", "names": {"a": "b", "c": "d"}}, "sample")
    assert [error.key.split(".")[0] for error in (caught.value, *caught.value.others)] == ["size", "names", "names"]
    assert str(caught.value).count("config of connector 'sample': ") == 3


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("streams", "more"),
    [
        ("[{stream: a}]", "callbacks: [{notify: 'json://" + "a" * 900_000 + "'}]"),
        ("[{stream: a, key_properties: [" + ", ".join(f"k{number}" for number in range(40_000)) + "]}]", ""),
        ("[{stream: '" + "[a]" * 300_000 + "'}]", ""),
        ("[{stream: a}]", "\n".join(f"k{number}: 1" for number in range(49_000))),
    ],
    ids=["one long word", "many names", "a long pattern", "unknown keys"],
)
def test_a_file_is_read_in_two_seconds_whatever_it_holds(tmp_path: Path, streams: str, more: str) -> None:
    file = tmp_path / "p.yaml"
    ends = "source: {connector: memory, config: {}}\ndestination: {connector: memory, config: {}}\n"
    file.write_text(f"{ends}streams: {streams}\n{more}\n")
    with within(2), contextlib.suppress(ConfigError):
        load_pipeline(file)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "public.users", True),
        ("public.*", "public.a.b", True),
        ("public.*", "Public.a", False),
        ("public", "public.a", False),
        ("order", "orders", False),
        ("order?", "orders", True),
        ("[ab]", "b", True),
        ("[!ab]", "b", False),
        ("a[[]b", "a[b", True),
        ("*", "line\nbreak", True),
        ("a.c", "abc", False),
    ],
)
def test_a_glob_matches_whole_names_with_their_case(pattern: str, name: str, expected: bool) -> None:
    assert glob_matches(pattern, name) is expected


@pytest.mark.parametrize("name", ["a.b", "*", "a[1]", "why?", "[*]", "[[]]"])
def test_each_name_has_a_pattern_of_its_own(name: str) -> None:
    pattern = exact_pattern(name)
    assert exact_name(pattern) == name
    assert glob_matches(pattern, name)


def test_an_exact_name_is_no_glob() -> None:
    assert [exact_name(pattern) for pattern in ("*", "a?", "[ab]", "a[*]b*")] == [None] * 4
    assert not is_glob("public.users")
    assert all(is_glob(pattern) for pattern in ("*", "a?", "[ab]"))


def test_the_json_schema_accepts_the_samples_and_refuses_mistakes() -> None:
    schema = pipeline_json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for text in (SAMPLE, SMALL, SMALL + "retries: \"{{ env_var('N') }}\"\ncallbacks:\nspool_limit: 2GB\n"):
        document = _CoreLoader(text).get_single_data()
        assert list(validator.iter_errors(document)) == []
    for wrong in (
        "retrys: 1\n",
        "concurrency: 0\n",
        "streams: []\n",
        "spool_limit: many\n",
        "source: {}\n",
        "retries: x\n",
    ):
        assert list(validator.iter_errors({**yaml.safe_load(SMALL), **yaml.safe_load(wrong)})), wrong


class _CoreLoader(yaml.SafeLoader):
    """As editors read: `on` is text."""


_CoreLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool") or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def test_the_json_schema_describes_every_key() -> None:
    schema = pipeline_json_schema()
    models = [schema, *schema["$defs"].values()]
    undescribed = [
        (model["title"], name)
        for model in models
        for name, item in model["properties"].items()
        if "description" not in item
    ]
    assert undescribed == []
    assert all(model["description"] for model in models)
    entry = schema["$defs"]["StreamEntry"]["properties"]["write_disposition"]
    assert "'append', 'replace', 'merge'" in str(entry)


def test_loading_imports_neither_arrow_nor_the_template_engine_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(SMALL)
    code = (
        "import sys; from syncblocks.sync.config import load_pipeline; load_pipeline(sys.argv[1]);"
        "print([name for name in ('pyarrow', 'pandas', 'jinja2', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.yaml")], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
