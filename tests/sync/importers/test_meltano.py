"""From meltano.yml to pipeline files: what is brought over, what is said of the rest, and that the files load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from syncblocks import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.importers.meltano import read_meltano
from tests.conftest import RunCLI

PROJECT = """\
version: 1
default_environment: prod
environments:
  - name: dev
    config:
      plugins:
        loaders:
          - name: target-postgres
            config: {dbname: dev}
  - name: prod
    env: {REGION: eu}
    config:
      plugins:
        loaders:
          - name: target-postgres
            config: {dbname: "wh_${REGION}"}
plugins:
  extractors:
    - name: tap-postgres
      variant: meltanolabs
      pip_url: meltanolabs-tap-postgres==0.9.0
      config:
        host: db.example
        password: $CRM_PASSWORD
        price: "5 $$"
        template: "{{ not ours }}"
        ssh_tunnel.host: jump
        filter_schemas: [public]
      select: ["public-users.*", "!public-users.password", "public-orders.*"]
      metadata:
        public-orders: {replication-method: INCREMENTAL, replication-key: updated_at}
        public-users: {replication-method: FULL_TABLE, view-key-properties: [id], own: 1}
        public-secret: {selected: false}
      schema:
        public-orders: {amount: {type: [string, "null"], format: x-singer.decimal}}
    - name: tap-postgres--archive
      inherit_from: tap-postgres
      config: {host: archive.example, _metadata.public-orders.replication-method: FULL_TABLE, _load_schema: x}
    - name: tap-jsonl
      variant: someone
  loaders:
    - name: target-postgres
      pip_url: meltanolabs-target-postgres
      config: {host: wh.example}
      env: {PGTZ: UTC}
    - name: target-jsonl
      executable: ./bin/target-jsonl
jobs:
  - name: nightly
    tasks: ["tap-postgres target-postgres dbt-postgres:run", [tap-jsonl, target-jsonl]]
schedules:
  - {name: nights, interval: "@daily", job: nightly}
  - {name: archive, interval: "0 5 * * 6", extractor: tap-postgres--archive, loader: target-postgres}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "meltano.yml"
    path.write_text(PROJECT)
    locks = tmp_path / "plugins" / "extractors"
    locks.mkdir(parents=True)
    (locks / "tap-jsonl--someone.lock").write_text(json.dumps({"pip_url": "tap-jsonl~=0.3"}))
    (tmp_path / ".env").write_text("export TAP_JSONL_PATHS='[]'\nOTHER=1\n")
    return path


def test_each_pair_of_extractor_and_loader_is_a_pipeline(project: Path) -> None:
    made = {pipeline.file: yaml.safe_load(pipeline.text) for pipeline in read_meltano(project)}
    assert list(made) == ["nightly_tap_postgres.yaml", "nightly_tap_jsonl.yaml", "archive.yaml"]
    first = made["nightly_tap_postgres.yaml"]
    assert first["source"]["config"] == {
        "tap": "tap-postgres",
        "pip": "meltanolabs-tap-postgres==0.9.0",
        "config": {
            "host": "db.example",
            "password": "{{ env_var('CRM_PASSWORD') }}",
            "price": "5 $",
            "template": "{{ '{{' }} not ours }}",
            "ssh_tunnel": {"host": "jump"},
            "filter_schemas": ["public"],
        },
        "select": ["public-users.*", "!public-users.password", "public-orders.*"],
        "metadata": {"public-users": {"own": 1}},
        "schema": {"public-orders": {"amount": {"type": ["string", "null"], "format": "x-singer.decimal"}}},
    }
    assert first["destination"]["config"]["config"] == {
        "host": "wh.example",
        "dbname": "wh_{{ env_var('REGION', 'eu') }}",
    }
    assert first["destination"]["config"]["env"] == {"PGTZ": "UTC"}
    assert first["streams"] == [
        {"stream": "*"},
        {"stream": "public-orders", "replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]},
        {"stream": "public-users", "replication_method": "FULL_TABLE", "key_properties": ["id"]},
        {"stream": "public-secret", "selected": False},
    ]


def test_what_is_inherited_locked_or_in_dotenv_is_found(project: Path) -> None:
    made = {pipeline.file: yaml.safe_load(pipeline.text) for pipeline in read_meltano(project)}
    archive = made["archive.yaml"]
    assert archive["source"]["config"]["tap"] == "tap-postgres"
    assert archive["source"]["config"]["config"]["host"] == "archive.example"
    assert archive["streams"][1]["replication_method"] == "FULL_TABLE"
    jsonl = made["nightly_tap_jsonl.yaml"]
    assert jsonl["source"]["config"]["pip"] == "tap-jsonl~=0.3"
    assert jsonl["source"]["config"]["config"] == {"paths": "{{ env_var('TAP_JSONL_PATHS') }}"}
    assert jsonl["destination"]["config"]["executable"] == "./bin/target-jsonl"


def test_schedules_and_what_is_left_out_stand_as_comments(project: Path) -> None:
    first, jsonl, archive = read_meltano(project)
    assert "#   0 0 * * *  cd THIS_FOLDER && syncblocks run THIS_FILE" in first.text
    assert "dbt run" in first.text
    assert "#   0 5 * * 6 " in archive.text
    assert any("_load_schema" in note for note in archive.notes)
    assert any("TAP_JSONL_PATHS" in note for note in jsonl.notes)


def test_steps_of_dbt_become_a_callback_and_others_are_named(project: Path) -> None:
    jobs = '["tap-postgres target-postgres", "dbt-postgres:deps dbt-postgres:run", "great_expectations:check"]'
    project.write_text(
        PROJECT.replace('["tap-postgres target-postgres dbt-postgres:run", [tap-jsonl, target-jsonl]]', jobs)
    )
    made = read_meltano(project)[0]
    (callback,) = yaml.safe_load(made.text)["callbacks"]
    assert callback == {"block": "dbt", "shell": "cd transform && dbt deps && dbt run", "on": ["pipeline"]}
    assert any("'great_expectations:check' is not converted" in note for note in made.notes)


def test_a_step_before_the_first_pair_and_a_job_without_one_are_named(project: Path) -> None:
    jobs = '["seed:run", "tap-postgres target-postgres"]\n  - {name: reports, tasks: ["dbt-postgres:run"]}'
    project.write_text(
        PROJECT.replace('["tap-postgres target-postgres dbt-postgres:run", [tap-jsonl, target-jsonl]]', jobs)
    )
    made = read_meltano(project)[0]
    assert "callbacks" not in yaml.safe_load(made.text), "dbt of another job is run when that job is"
    assert any("job 'nightly': step 'seed:run' is not converted" in note for note in made.notes)
    assert any("job 'reports': step 'dbt-postgres:run' is not converted" in note for note in made.notes)


def test_commands_of_the_file_are_what_dbt_is_called_with(project: Path) -> None:
    commands = """
  transformers:
    - name: dbt-postgres
      commands: {daily: run --exclude reports, snap: {args: snapshot -s monthly}}
jobs:"""
    steps = "dbt-postgres:snap dbt-postgres:daily dbt-postgres:test"
    project.write_text(PROJECT.replace("\njobs:", commands).replace("dbt-postgres:run", steps))
    (callback,) = yaml.safe_load(read_meltano(project)[0].text)["callbacks"]
    assert callback["shell"] == "cd transform && dbt snapshot -s monthly && dbt run --exclude reports && dbt test"


def test_an_unknown_word_between_extractor_and_loader_is_refused(project: Path) -> None:
    project.write_text(
        PROJECT.replace("tap-postgres target-postgres dbt", "tap-postgres hide-email target-postgres dbt")
    )
    with pytest.raises(ConfigError, match="'hide-email' in job 'nightly'"):
        read_meltano(project)


def test_what_stands_in_included_files_belongs_to_the_project(project: Path) -> None:
    extractors, loaders = (
        PROJECT.index("  extractors:"),
        PROJECT.index("  loaders:\n    - name: target-postgres\n      pip"),
    )
    jobs = PROJECT.index("jobs:")
    (project.parent / "extract").mkdir()
    (project.parent / "extract" / "taps.meltano.yml").write_text("plugins:\n" + PROJECT[extractors:loaders])
    (project.parent / "jobs.yml").write_text(PROJECT[jobs:])
    text = PROJECT[:extractors] + PROJECT[loaders:jobs] + "include_paths: [./jobs.yml, './extract/*.meltano.yml']\n"
    whole = [made.text for made in read_meltano(project)]
    project.write_text(text)
    assert [made.text for made in read_meltano(project)] == whole
    project.write_text(text.replace("./extract", f"{project.parent}/extract"))
    assert [made.text for made in read_meltano(project)] == whole


def test_a_schedule_of_dbt_alone_is_no_run_and_two_of_them_are_no_second_step(project: Path) -> None:
    archive = "extractor: tap-postgres--archive, loader: target-postgres"
    of_dbt = "".join(
        f'  - {{name: s{number}, interval: "@hourly", transform: {what}, {archive}}}\n'
        for number, what in enumerate(("only", "run", "run"))
    )
    project.write_text(PROJECT + of_dbt)
    first, _, made = read_meltano(project)
    (callback,) = yaml.safe_load(made.text)["callbacks"]
    assert callback["shell"] == "cd transform && dbt run"
    (note,) = [note for note in first.notes if "dbt alone" in note]
    assert "schedule 's0' runs dbt alone" in note
    assert note.endswith("0 * * * *  cd THIS_FOLDER/transform && dbt run")
    assert "'s0'" not in made.text


def test_what_no_job_and_no_schedule_runs_is_named(project: Path) -> None:
    more = "  extractors:\n    - name: tap-base\n    - name: tap-left\n      inherit_from: tap-base\n"
    project.write_text(PROJECT.replace("  extractors:\n", more) + "")
    assert "extractors that no job and no schedule runs are left out: tap-left" in read_meltano(project)[0].notes
    project.write_text(PROJECT)
    assert not any("no job" in note for made in read_meltano(project) for note in made.notes)


def test_values_of_settings_and_what_an_environment_says_of_a_parent_are_kept(project: Path) -> None:
    text = PROJECT.replace("      filter_schemas: [public]\n", "").replace(
        "      config:\n        host: db.example",
        """      settings:
        - {name: filter_schemas, value: [public]}
        - {name: host, value: not.this}
        - {name: ssl.mode, value: $MODE}
      python: python3.9
      load_schema: y
      config:
        host: db.example""",
    )
    overrides = "            config: {dbname: dev}\n        extractors: [{name: tap-postgres, config: {port: 6}}]\n"
    project.write_text(text.replace("            config: {dbname: dev}\n", overrides))
    first, _, archive = read_meltano(project, "dev")
    for made, host in ((first, "db.example"), (archive, "archive.example")):
        config = yaml.safe_load(made.text)["source"]["config"]["config"]
        assert (config["host"], config["port"], config["filter_schemas"]) == (host, 6, ["public"])
        assert config["ssl"] == {"mode": "{{ env_var('MODE') }}"}
        assert any("'python'" in note for note in made.notes)
    assert any("_load_schema: y" in note for note in first.notes)


def test_the_environment_of_a_schedule_stands_in_its_line(project: Path) -> None:
    project.write_text(PROJECT.replace("job: nightly}", "job: nightly, env: {DAY: 'a b'}}"))
    assert "cd THIS_FOLDER && DAY='a b' syncblocks run THIS_FILE" in read_meltano(project)[0].text


def test_a_mapper_is_refused_by_name(project: Path, run_cli: RunCLI) -> None:
    mapper = """
  mappers:
    - name: meltano-map-transformer
      mappings: [{name: hash-email, config: {stream_maps: {users: {email: md5(email)}}}}]
jobs:"""
    text = PROJECT.replace("\njobs:", mapper).replace(
        "tap-postgres target-postgres dbt", "tap-postgres hash-email target-postgres dbt"
    )
    project.write_text(text)
    done = run_cli(["init", "--from-meltano", "meltano.yml"], project.parent)
    assert done.returncode == 2
    assert "'hash-email' in job 'nightly'" in done.stderr
    assert "in clear" in done.stderr
    assert not list(project.parent.glob("nightly*.yaml"))


def test_the_schema_that_meltano_loads_into_reaches_the_target(project: Path) -> None:
    locks = project.parent / "plugins" / "loaders"
    locks.mkdir(parents=True)
    settings = [{"name": "default_target_schema", "value": "$MELTANO_EXTRACT__LOAD_SCHEMA"}, {"name": "host"}]
    (locks / "target-postgres--any.lock").write_text(json.dumps({"pip_url": "x", "settings": settings}))
    made = {each.file: yaml.safe_load(each.text)["destination"]["config"]["config"] for each in read_meltano(project)}
    assert made["archive.yaml"]["default_target_schema"] == "x"
    assert made["nightly_tap_postgres.yaml"]["default_target_schema"] == "tap_postgres"


def test_an_environment_brings_its_overrides(project: Path) -> None:
    first = yaml.safe_load(read_meltano(project, "dev")[0].text)
    assert first["destination"]["config"]["config"]["dbname"] == "dev"
    with pytest.raises(ConfigError, match="dev, prod"):
        read_meltano(project, "nowhere")


def test_without_jobs_every_extractor_goes_to_the_only_loader(tmp_path: Path) -> None:
    path = tmp_path / "meltano.yml"
    path.write_text("plugins:\n  extractors: [{name: tap-a}, {name: tap-b}]\n  loaders: [{name: target-c}]\n")
    assert [made.file for made in read_meltano(path)] == ["tap_a_to_target_c.yaml", "tap_b_to_target_c.yaml"]
    path.write_text("plugins:\n  extractors: [{name: tap-a}]\n  loaders: [{name: target-c}, {name: target-d}]\n")
    with pytest.raises(ConfigError, match="belong together"):
        read_meltano(path)


def test_the_command_writes_files_that_load(project: Path, run_cli: RunCLI) -> None:
    done = run_cli(["init", "--from-meltano", "meltano.yml", "--json"], project.parent)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len([name for name in told["files"] if name.endswith(".yaml")]) == 3
    for name in told["files"]:
        if name.endswith(".yaml"):
            environ = {"CRM_PASSWORD": "x", "TAP_JSONL_PATHS": "[]"}
            pipeline = load_pipeline(project.parent / name, environ=environ)
            assert pipeline.source.connector == "singer"
    again = run_cli(["init", "--from-meltano", "meltano.yml"], project.parent)
    assert again.returncode == 2
    assert "exist already" in again.stderr
