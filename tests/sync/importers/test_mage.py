"""From a Mage project to pipeline files: one command, what is said of the rest, and that they run."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from syncblocks import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.importers.mage import MagePipeline, read_mage
from tests.conftest import RunCLI

PIPELINE = """\
name: night shop
uuid: night_shop
type: integration
created_at: 2024-01-01
variables: {region: eu, api_key: k3y}
retry_config: {retries: 2, delay: 1, exponential_backoff: true}
notification_config: {alert_on: [trigger_failure]}
blocks:
- {uuid: write_shelf, type: data_exporter, language: yaml, upstream_blocks: [tidy], callback_blocks: [tell]}
- uuid: tidy
  type: transformer
  language: python
  status: executed
  upstream_blocks: [read_shop]
  timeout: 60
  configuration: {limit: 3}
- {uuid: read_shop, type: data_loader, language: yaml, upstream_blocks: [], callback_blocks: [tell], has_callback: true}
callbacks:
- {uuid: tell, type: callback, language: python}
conditionals:
- {uuid: only_mondays, type: conditional, language: python}
"""

SOURCE = """\
source: postgresql
config:
  host: "{host}"
  port: {port}
  database: "{{{{ env_var('SHOP_DB') }}}}"
  username: "{{{{ mage_secret_var('shop_user') }}}}"
  password: pa55
  schema: shop
  replication_slot: ""
  batch_fetch_limit: 500
  _patterns:
    destination_table: "shelf_{{{{ variables('stream') }}}}"
"""

DESTINATION = """\
destination: postgresql
config:
  host: "{host}"
  port: {port}
  database: "{{{{ env_var('SHOP_DB') }}}}"
  username: "{{{{ mage_secret_var('shop_user') }}}}"
  schema: shelf
  table: anything
  lower_case: true
"""

TRANSFORMER = """\
if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test
@transformer
def tidy(data, *args, **kwargs):
    word = data['word'].iloc[0].upper() + kwargs['stream'][0]
    data['word'] = word + kwargs['region'] + str(kwargs['configuration']['limit'])
    return data
@test
def has_output(output, *args) -> None:
    assert output is not None
"""

CALLBACK = """\
from pathlib import Path
if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback
@callback('success')
def tell(parent_block_data, **kwargs):
    name = kwargs['parent_block_uuid'] + '-' + kwargs['stream'] + '-' + kwargs['destination_table'] + '.told'
    Path(__file__).with_name(name).write_text(str(len(parent_block_data)))
"""

LEGACY = "from night.tools import helper\n@on_success\ndef done(**kwargs): ...\n"


def stream(name: str, *, selected: bool = True, **settings: Any) -> dict[str, Any]:
    metadata = [
        {"breadcrumb": [], "metadata": {"selected": selected}},
        {"breadcrumb": ["properties", "hidden"], "metadata": {"inclusion": "available", "selected": False}},
        {"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "automatic"}},
    ]
    properties: dict[str, Any] = {
        column: {"type": ["null", "string"]} for column in ("id", "word", "changed", "hidden")
    }
    return {
        "tap_stream_id": name,
        "stream": name,
        "metadata": metadata,
        "schema": {"properties": properties},
    } | settings


STREAMS = [
    stream("words", replication_method="FULL_TABLE", key_properties=["id"], unique_constraints=None),
    stream(
        "visits",
        replication_method="INCREMENTAL",
        bookmark_properties=["changed"],
        unique_constraints=["id"],
        unique_conflict_method="UPDATE",
        partition_keys=["changed"],
    ),
    stream("attic", selected=False),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "night", "db.example", 5432)


def write_project(folder: Path, host: str, port: int) -> Path:
    files = {
        "metadata.yaml": "project_type: standalone\nvariables_dir: nowhere\n",
        "pipelines/night_shop/metadata.yaml": PIPELINE,
        "pipelines/night_shop/data_integration_catalog.json": json.dumps({"catalog": {"streams": STREAMS}}),
        "pipelines/night_shop/triggers.yaml": yaml.safe_dump({"triggers": [TRIGGER]}),
        "pipelines/by_hand/metadata.yaml": "uuid: by_hand\ntype: python\nblocks: []\n",
        "data_loaders/read_shop.yaml": SOURCE.format(host=host, port=port),
        "data_exporters/write_shelf.yaml": DESTINATION.format(host=host, port=port),
        "transformers/tidy.py": TRANSFORMER,
        "callbacks/tell.py": CALLBACK,
        "callbacks/read_shop_callback.py": LEGACY,
        "state/night/pipelines/night_shop/postgresql/visits/shelf_visits_state": json.dumps(
            {"bookmarks": {"visits": {"changed": "2024-01-01 00:00:00"}}}
        ),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


TRIGGER = {
    "name": "nightly",
    "schedule_type": "time",
    "schedule_interval": "@daily",
    "status": "active",
    "variables": {"region": "us", "zip": "01234", "floor": "12", "a_token": "t0ken"},
    "settings": {"allow_blocks_to_fail": True, "timeout": 30},
    "sla": 60,
}


def read(project: Path, data: Path | None = None) -> tuple[MagePipeline, Any]:
    (made,), _ = read_mage(project, data=data)
    return made, yaml.safe_load(made.text)


def test_blocks_settings_and_streams_come_over(project: Path) -> None:
    made, document = read(project)
    assert made.file == "night_shop.yaml"
    login = {
        "host": "db.example",
        "port": 5432,
        "dbname": "{{ env_var('SHOP_DB') }}",
        "user": "{{ secret('shop_user') }}",
    }
    password = {"password": "{{ env_var('READ_SHOP_PASSWORD') }}"}
    keys = {"key_properties": ["id"]}
    columns = {"columns": {"include": ["id", "word", "changed"]}, "destination_table": "shelf_{{ stream | table }}"}
    assert document == {
        "pipeline": "night_shop",
        "variables": {"region": "eu", "api_key": "{{ env_var('NIGHT_SHOP_API_KEY') }}"},
        "retries": 2,
        "retry_delay_s": 1,
        "allow_blocks_to_fail": True,
        "run_timeout_s": 30,
        "concurrency": 1,
        "source": {
            "block": "read_shop",
            "connector": "postgres",
            "config": {**login, **password, "schema": "shop", "checkpoint_records": 500},
        },
        "stream_names": "bare",
        "transformers": [
            {"block": "tidy", "file": "transformers/tidy.py", "frames": "record", "configuration": {"limit": 3}}
        ],
        "destination": {"block": "write_shelf", "connector": "postgres", "config": {**login, "schema": "shelf"}},
        "streams": [
            {
                "stream": "shop.words",
                "replication_method": "FULL_TABLE",
                "write_disposition": "replace",
                **keys,
                **columns,
                "mage_columns": True,
            },
            {
                "stream": "shop.visits",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["changed"],
                "unique_conflict_method": "UPDATE",
                "write_disposition": "merge",
                **keys,
                **columns,
                "mage_columns": True,
            },
        ],
        "callbacks": [
            {"block": "tell", "file": "callbacks/tell.py", "on": ["read_shop", "write_shelf"]},
            {"block": "read_shop_callback", "file": "callbacks/read_shop_callback.py", "on": ["read_shop"]},
        ],
    }


@pytest.mark.parametrize(
    "word",
    [
        "READ_SHOP_PASSWORD",
        "'shop_user'",
        "exponential_backoff",
        "'timeout'",
        "only_mondays",
        "imports night.tools",
        "partition_keys",
        "attic",
        "sla",
        "'a_token'",
        "NIGHT_SHOP_API_KEY",
        "bookmark is unknown",
        "Mage adds all records again",
    ],
)
def test_what_differs_or_is_not_brought_over_is_said(project: Path, word: str) -> None:
    made, _ = read(project)
    assert [note for note in made.notes if word in note], made.notes
    assert not [secret for secret in ("pa55", "k3y", "t0ken") if secret in made.text + "".join(made.notes)]


def test_the_schedule_is_a_line_of_a_crontab_and_bookmarks_are_to_adopt(project: Path) -> None:
    made, _ = read(project, project / "state")
    assert "#   0 0 * * *  cd THIS_FOLDER && syncblocks run night_shop.yaml --trigger nightly " in made.text
    assert """--variable 'floor="12"' --variable region=us --variable zip=01234\n""" in made.text
    assert made.adoptions == ("syncblocks state adopt night_shop.yaml shop.visits 'changed=2024-01-01 00:00:00'",)
    assert not [note for note in made.notes if "bookmark is unknown" in note]


def with_pipeline(project: Path, before: str, after: str) -> None:
    path = project / "pipelines/night_shop/metadata.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def with_triggers(project: Path, *triggers: dict[str, Any]) -> None:
    path = project / "pipelines/night_shop/triggers.yaml"
    plain = {"name": "nightly", "schedule_type": "time", "status": "active", "settings": {}}
    path.write_text(yaml.safe_dump({"triggers": [{**plain, **each} for each in triggers]}))


@pytest.mark.parametrize(
    ("interval", "settings", "schedule"),
    [
        ("@daily", {"skip_if_previous_running": True}, {"cron": "0 0 * * *"}),
        ("@weekly", {}, {"cron": "0 0 * * 1", "overlap": "wait"}),
        ("*/15 8-18 * * 1-5", {}, {"cron": "*/15 8-18 * * 1-5", "overlap": "wait"}),
        ("@always_on", {}, None),
        ("@daily", {"landing_time_enabled": True}, None),
    ],
)
def test_the_only_active_trigger_becomes_the_schedule(
    project: Path, interval: str, settings: dict[str, Any], schedule: dict[str, str] | None
) -> None:
    former = {"name": "former", "schedule_interval": "@hourly", "status": "inactive"}
    with_triggers(project, {"schedule_interval": interval, "settings": settings}, former)
    made, document = read(project)
    assert document.get("schedule") == schedule
    assert bool([note for note in made.notes if "trigger nightly" in note and "`schedule`" in note]) == (not schedule)
    assert "Trigger former (not active in Mage)" in made.text


def test_a_setting_in_which_triggers_differ_is_named(project: Path) -> None:
    settings = {"allow_blocks_to_fail": True, "timeout": 60}
    with_triggers(
        project,
        {"schedule_interval": "@daily", "settings": settings},
        {"schedule_interval": "@hourly", "settings": {**settings, "timeout": 90}, "name": "often"},
    )
    made, document = read(project)
    assert document["allow_blocks_to_fail"] is True
    assert not {"run_timeout_s", "schedule"} & set(document)
    assert (
        len([note for note in made.notes if "'timeout'" in note and "`run_timeout_s`" in note]) == 3
    )  # a block's, too
    assert made.text.count("as a line of a crontab") == 2


def test_notifications_become_a_callback_block_and_no_url_is_copied(project: Path) -> None:
    slack = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    config = (
        f"slack_config: {{webhook_url: '{slack}'}}, email_config: {{smtp_host: mail}}, "
        "discord_config: {webhook_url: \"{{ env_var('DISCORD') }}\"}"
    )
    with_pipeline(project, "alert_on: [trigger_failure]", config)
    (project / "metadata.yaml").write_text("notification_config: {alert_on: [trigger_failure, trigger_passed_sla]}\n")
    made, document = read(project)
    variable = "NOTIFICATION_CONFIG_SLACK_CONFIG_WEBHOOK_URL"
    assert document["callbacks"][-1] == {
        "block": "notifications",
        "notify": [f"{{{{ env_var('{variable}') }}}}", "{{ env_var('DISCORD') }}"],
        "on": ["pipeline"],
        "status": ["failure", "cancelled"],  # the trigger has a timeout, of which Mage notifies as of a failure
    }
    assert "hooks.slack.com" not in made.text + "".join(made.notes)
    for word in (variable, "'email_config'", "`expect`"):
        assert [note for note in made.notes if word in note], word


@pytest.mark.parametrize(
    ("returned", "when"),
    [
        ("kwargs['stream'] == 'words'", "stream == 'words'"),
        ("kwargs.get('hr') in ('03', '04') or not kwargs['full']", "(hr in ['03', '04']) or (not full)"),
        ("kwargs['index'] == 0", None),
        ("kwargs['execution_date'].hour == 3", None),
        ("kwargs['unknown'] == 1", None),
        ("kwargs['region'] == \"it's\"", None),
        ("True", ""),
    ],
)
def test_a_conditional_of_the_loader_becomes_when_if_it_means_the_same(
    project: Path, returned: str, when: str | None
) -> None:
    with_pipeline(project, "language: python}\n", "language: python, upstream_blocks: [read_shop]}\n")
    with_pipeline(project, "region: eu,", "region: eu, full: false,")
    (project / "conditionals").mkdir()
    text = f"@condition\ndef asks(*args, **kwargs) -> bool:\n    return {returned}\n"
    (project / "conditionals" / "only_mondays.py").write_text(text)
    made, document = read(project)
    assert [each.get("when", "") for each in document["streams"]] == [when or ""] * 2
    assert bool([note for note in made.notes if "only_mondays" in note]) == (when is None)


def test_lines_of_functions_that_count_chunks_are_named_with_what_to_write(project: Path) -> None:
    (project / "callbacks" / "tell.py").write_text(
        "@callback('success')\ndef tell(data, **kwargs):\n    if kwargs['index'] != 0:\n        return\n"
        "    print(data['index'], kwargs.get('stream'))\n"
        "@callback\ndef last(is_last_block_run, **rest):\n    if is_last_block_run and rest.get('index'): ...\n"
    )
    (project / "transformers" / "tidy.py").write_text(
        "@transformer\ndef tidy(data, *args, **kwargs): kwargs['index']\n"
    )
    made, _ = read(project)
    assert [note.partition(": ")[0] for note in made.notes if "Mage's `" in note] == [
        "transformers/tidy.py:2",
        *(f"callbacks/tell.py:{line}" for line in (3, 8, 8)),
    ]
    assert [note for note in made.notes if "tell.py:3" in note and "delete a condition such as `index != 0`" in note]


def test_what_is_brought_over_is_a_valid_pipeline_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHOP_DB", "READ_SHOP_PASSWORD", "NIGHT_SHOP_API_KEY", "SYNCBLOCKS_SECRET_SHOP_USER"):
        monkeypatch.setenv(name, "x1y2")
    monkeypatch.setenv("HOOK", "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    config = "slack_config: {webhook_url: \"{{ env_var('HOOK') }}\"}"
    with_pipeline(project, "alert_on: [trigger_failure]", config)
    with_pipeline(project, "language: python}\n", "language: python, upstream_blocks: [read_shop]}\n")
    (project / "conditionals").mkdir()
    text = "@condition\ndef asks(**kwargs):\n    return kwargs['stream'] != 'words' and kwargs['region'] in ['eu']\n"
    (project / "conditionals" / "only_mondays.py").write_text(text)
    (project / "callbacks" / "read_shop_callback.py").write_text("@on_success\ndef done(**kwargs): ...\n")
    with_triggers(project, {"schedule_interval": "@daily", "settings": {"timeout": 60}})
    made, _ = read(project)
    (project / made.file).write_text(made.text)
    pipeline = load_pipeline(project / made.file)
    assert (pipeline.run_timeout_s, pipeline.streams[0].when) == (60, "(stream != 'words') and (region in ['eu'])")


def test_functions_of_secret_stores_stay_as_they_are(project: Path) -> None:
    template = "{{ vault_secret_var('mage/api', 'token') }}"
    source = project / "data_loaders" / "read_shop.yaml"
    source.write_text(source.read_text().replace("password: pa55", f'password: "{template}"'))
    made, document = read(project)
    assert document["source"]["config"]["password"] == template
    assert not [note for note in made.notes if "vault_secret_var" in note]


def with_streams(project: Path, *streams: dict[str, Any]) -> None:
    path = project / "pipelines" / "night_shop" / "data_integration_catalog.json"
    path.write_text(json.dumps({"catalog": {"streams": streams}}))


@pytest.mark.parametrize(
    ("columns", "settings", "naming"),
    [
        ("id Loud", {}, "lower"),
        ("id Loud Order", {}, "mage"),
        ("id order", {"lower_case": False}, "mage"),
        ("id order", {"allow_reserved_words": True}, None),
        ("id Loud", {"lower_case": False}, None),
        ("id Loud Order", {"lower_case": False}, "by hand"),
    ],
)
def test_columns_are_called_as_mage_calls_them(
    project: Path, columns: str, settings: dict[str, Any], naming: str | None
) -> None:
    with_streams(project, stream("words", schema={"properties": {key: {} for key in columns.split()}}))
    path = project / "data_exporters" / "write_shelf.yaml"
    document = yaml.safe_load(path.read_text())
    document["config"] = {**document["config"], "lower_case": True, **settings}
    path.write_text(yaml.safe_dump(document))
    made, read_back = read(project)
    notes = [note for note in made.notes if "Order: _Order" in note and "rename" in note]
    assert read_back["destination"].get("naming") == (None if notes else naming)
    assert bool(notes) == (naming == "by hand")


def test_the_catalog_may_stand_in_metadata_or_in_the_source_and_streams_may_lack_an_id(project: Path) -> None:
    (project / "pipelines" / "night_shop" / "data_integration_catalog.json").unlink()
    plain = stream("words", replication_method="INCREMENTAL")
    del plain["tap_stream_id"]
    catalog = {"catalog": {"streams": [plain]}}
    source, metadata = project / "data_loaders/read_shop.yaml", project / "pipelines/night_shop/metadata.yaml"
    before = source.read_text()
    source.write_text(before + yaml.safe_dump(catalog))
    made, document = read(project)
    assert [each["stream"] for each in document["streams"]] == ["shop.words"]
    assert [note for note in made.notes if "needs bookmark_properties" in note]
    source.write_text(before)
    metadata.write_text(metadata.read_text() + yaml.safe_dump({"data_integration": catalog}))
    assert [each["stream"] for each in read(project)[1]["streams"]] == ["shop.words"]


def test_operators_of_bookmarks_come_over_but_for_those_of_filters(project: Path) -> None:
    operators = {"id": ">", "clicks": ">=", "word": "<", "other": ">"}
    bookmarks = {"bookmark_properties": ["id", "clicks", "word"], "bookmark_property_operators": operators}
    with_streams(project, stream("words", replication_method="INCREMENTAL", **bookmarks))
    made, document = read(project)
    assert document["streams"][0]["bookmark_property_operators"] == {"id": ">"}
    assert [note for note in made.notes if "operators" in note] == [
        "stream words: bookmark_property_operators 'word: <' is left out: here are > and >="
    ]


def test_what_mage_writes_for_nothing_is_nothing(project: Path) -> None:
    nothing: dict[str, Any] = {"bookmark_properties": [], "replication_key": "", "unique_constraints": []}
    with_streams(project, stream("words", replication_method="FULL_TABLE", disable_column_type_check=False, **nothing))
    made, document = read(project)
    assert "bookmark_properties" not in document["streams"][0]
    assert not [note for note in made.notes if "bookmark_properties" in note or ("type" in note and "words" in note)]


def test_aliases_are_listed_with_the_rename_in_their_place(project: Path) -> None:
    with_streams(project, stream("words", schema={"properties": {"id": {}, "clicks": {"aliases": ["field_1"]}}}))
    made, _ = read(project)
    assert [note for note in made.notes if "rename: {clicks: field_1}" in note]


def test_a_date_among_the_variables_is_a_text_that_the_file_may_hold(project: Path) -> None:
    path = project / "pipelines/night_shop/metadata.yaml"
    path.write_text(path.read_text().replace("region: eu,", "region: eu, since: 2024-01-01,"))
    made, document = read(project)
    assert document["variables"]["since"] == "2024-01-01"
    assert [note for note in made.notes if "since is a date" in note]


def test_a_header_that_holds_a_token_is_not_copied_and_a_path_is(project: Path) -> None:
    settings = {"headers": {"Authorization": "Bearer s3cret"}, "path_to_credentials_json_file": "/keys/google.json"}
    path = project / "data_loaders/read_shop.yaml"
    path.write_text(yaml.safe_dump({"source": "api", "config": settings}))
    made, document = read(project)
    assert "s3cret" not in made.text
    assert document["source"]["config"]["path_to_credentials_json_file"] == "/keys/google.json"


def test_columns_of_ones_own_come_over(project: Path) -> None:
    path = project / "data_exporters" / "write_shelf.yaml"
    path.write_text(path.read_text() + "  _streams: {columns: {origin: crm}}\n")
    _, document = read(project)
    assert [each["add_columns"] for each in document["streams"]] == [{"origin": "crm"}] * 2


def test_columns_that_are_filled_anew_do_not_come_from_the_source_as_well(
    project: Path, tmp_path: Path, run_cli: RunCLI
) -> None:
    path = project / "data_exporters" / "write_shelf.yaml"
    path.write_text(path.read_text() + "  _streams: {columns: {origin: crm, id: none}}\n")
    columns = ("id", "_mage_created_at", "_mage_updated_at", "origin")
    properties = {"properties": {name: {"type": ["null", "string"]} for name in columns}}
    marked = {"replication_method": "INCREMENTAL", "bookmark_properties": ["_mage_updated_at"]}
    common = {"schema": properties, "key_properties": ["id"]}
    with_streams(project, stream("plain", **common), stream("marked", **common, **marked))
    made, document = read(project)
    plain, by_mage = document["streams"]
    assert (plain["columns"], plain["mage_columns"]) == ({"include": ["id"]}, True)
    assert by_mage["columns"] == {"include": ["id", "_mage_created_at", "_mage_updated_at"]}
    assert "mage_columns" not in by_mage
    assert [each["add_columns"] for each in (plain, by_mage)] == [{"origin": "crm"}] * 2
    assert len([note for note in made.notes if "filled anew" in note]) == 4
    names = ", ".join(f"{name} text" for name in columns)
    with closing(sqlite3.connect(tmp_path / "source.db")) as database:
        database.executescript(f"create table plain ({names}); create table marked ({names})")
    for each in (plain, by_mage):
        each["stream"] = each["stream"].removeprefix("shop.")
    document = {
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": document["streams"],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    done = run_cli(["plan", "p.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_bookmark_is_that_of_the_table(project: Path) -> None:
    states = project / "state/night/pipelines/night_shop/postgresql/visits"
    former = {"bookmarks": {"visits": {"changed": "2020-01-01 00:00:00"}}}
    (states / "former_state").write_text(json.dumps(former))
    made, _ = read(project, project / "state")
    assert "changed=2024-01-01 00:00:00" in made.adoptions[0]
    (states / "shelf_visits_state").rename(states / "other_state")
    made, _ = read(project, project / "state")
    assert "changed" not in made.adoptions[0]
    assert [note for note in made.notes if "bookmark is unknown" in note]


def test_a_name_of_a_schema_may_be_a_template(project: Path) -> None:
    path = project / "data_loaders" / "read_shop.yaml"
    path.write_text(path.read_text().replace("schema: shop", "schema: \"{{ mage_secret_var('place') }}\""))
    assert [each["stream"] for each in read(project)[1]["streams"]] == [
        "{{ secret('place') }}.words",
        "{{ secret('place') }}.visits",
    ]


def test_a_pipeline_that_is_not_finished_does_not_stop_the_others(project: Path) -> None:
    (project / "pipelines" / "begun").mkdir()
    path = project / "pipelines" / "begun" / "metadata.yaml"
    path.write_text("uuid: begun\ntype: integration\nblocks: []\n")
    (made,), left_out = read_mage(project)
    assert made.file == "night_shop.yaml"
    assert len(left_out) == 2
    assert "begun" in left_out[0]
    assert "exactly one is needed" in left_out[0]
    assert "its type is python" in left_out[1]
    with pytest.raises(ConfigError, match="exactly one is needed"):
        read_mage(project, "begun")


def test_what_is_no_project_or_not_in_it_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Mage project"):
        read_mage(tmp_path)
    with pytest.raises(ConfigError, match="night_shop"):
        read_mage(project, "night_shp")
    with pytest.raises(ConfigError, match="integration"):
        read_mage(project, "by_hand")
    (project / "data_loaders" / "read_shop.yaml").write_text("config: {password: 'pa55\n")
    with pytest.raises(ConfigError, match="line is not closed") as caught:
        read_mage(project)
    assert "pa55" not in str(caught.value)


def test_a_source_without_a_connector_is_a_tap_or_left_to_the_user(project: Path) -> None:
    (project / "data_loaders" / "read_shop.yaml").write_text(
        "source: github\nconfig: {access_token: abc, proxy: 'http://me:pa55@proxy'}\n"
    )
    _, document = read(project)
    assert document["source"]["connector"] == "singer"
    assert document["source"]["config"]["tap"] == "tap-github"
    assert document["source"]["config"]["config"] == {
        "access_token": "{{ env_var('READ_SHOP_ACCESS_TOKEN') }}",
        "proxy": "{{ env_var('READ_SHOP_PROXY') }}",
    }
    (project / "data_loaders" / "read_shop.yaml").write_text("source: carrier_pigeon\nconfig: {}\n")
    made, document = read(project)
    assert document["source"]["connector"] == "carrier_pigeon"
    assert [note for note in made.notes if "by hand" in note and "carrier_pigeon" in note]


@pytest.mark.full
def test_one_command_brings_a_project_over_and_it_runs(
    postgres_url: str, run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = urlsplit(postgres_url)
    project = write_project(tmp_path / "night", place.hostname or "localhost", place.port or 5432)
    monkeypatch.setenv("SHOP_DB", place.path.strip("/"))
    monkeypatch.setenv("NIGHT_SHOP_API_KEY", "k3y")
    monkeypatch.setenv("READ_SHOP_PASSWORD", place.password or "none")
    monkeypatch.setenv("SYNCBLOCKS_SECRET_SHOP_USER", place.username or "root")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute("CREATE SCHEMA shelf")
        for name in ("words", "visits"):
            table = f"shop.{name} (id int PRIMARY KEY, word text, changed timestamp, hidden text)"
            connection.execute(f"CREATE TABLE {table}")
            connection.execute(
                f"INSERT INTO shop.{name} VALUES (1, 'a', '2024-01-01', 'h'), (2, 'b', '2024-01-02', 'h')"
            )
        # As Mage has left it: one record, and the bookmark at it.
        connection.execute("CREATE TABLE shelf.shelf_visits (id int UNIQUE, word text, changed timestamp)")
        connection.execute("INSERT INTO shelf.shelf_visits VALUES (1, 'A-of-mage', '2024-01-01')")
    (project / "callbacks" / "read_shop_callback.py").write_text("@on_success\ndef done(**kwargs): ...\n")
    args = ["init", "--from-mage", str(project), "--mage-data", str(project / "state"), "--json", "new"]
    done = run_cli(args, tmp_path)
    assert done.returncode == 0, done.stderr
    new, told = tmp_path / "new", json.loads(done.stdout)
    assert (new / "transformers" / "tidy.py").read_text() == TRANSFORMER
    assert (new / "callbacks" / "tell.py").read_text() == CALLBACK
    (adopt,) = [step for step in told["next"] if "adopt" in step]
    assert "shop.visits 'changed=2024-01-01 00:00:00'" in adopt
    adopted = run_cli(["state", "adopt", "night_shop.yaml", "shop.visits", "changed=2024-01-01 00:00:00"], new)
    assert adopted.returncode == 0, adopted.stderr
    ran = run_cli(["run", "night_shop.yaml"], new)
    assert ran.returncode == 0, ran.stderr
    with psycopg.connect(postgres_url) as connection:
        words = connection.execute("SELECT id, word FROM shelf.shelf_words ORDER BY id").fetchall()
        visits = connection.execute("SELECT id, word FROM shelf.shelf_visits ORDER BY id").fetchall()
    assert words == [(1, "Aweu3"), (2, "Bweu3")]
    assert (2, "Bveu3") in visits
    assert len(visits) == 2
    assert {path.name for path in (new / "callbacks").glob("*.told")} == {
        f"{block}-{name}-shelf_{name}.told" for block in ("read_shop", "write_shelf") for name in ("words", "visits")
    }
    assert run_cli(args, tmp_path).returncode == 2


def test_a_folder_within_a_project_is_told_the_project(project: Path) -> None:
    folder = next(path.parent for path in project.glob("pipelines/*/metadata.yaml"))
    with pytest.raises(ConfigError, match="is no Mage project") as caught:
        read_mage(folder)
    assert caught.value.nearest == str(project)
