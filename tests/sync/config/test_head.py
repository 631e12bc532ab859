"""The head of a pipeline file: read without the rest, with no template filled in but that of `store`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from syncblocks import load_pipeline
from syncblocks.sync.config.head import read_head
from syncblocks.sync.config.private_folder import tick_folder
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.schedules.expect import Expect, Volume

FILE = """\
pipeline: crm
schedule: {cron: "*/15 * * * *", timezone: Europe/Berlin, missed: all, overlap: wait}
owner: data-team
tags: [sales, eu]
runbook: https://wiki.example/crm
source: {connector: csv, config: {path: data, password: "{{ secret('gone') }}"}}
destination: {connector: duckdb, config: {path: w.duckdb}}
streams: [{stream: "*"}]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "crm.yaml"
    path.write_text(text)
    return path


def store(folder: Path, line: str, environ: Mapping[str, str] | None = None) -> tuple[str, frozenset[str]]:
    return tuple(read_head(write(folder, f"{FILE}{line}\n")).store(environ))  # type: ignore[return-value]


def test_the_head_is_read_where_the_file_cannot_be_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    with pytest.raises(ConfigError, match="no secret 'gone'"):
        load_pipeline(path)
    head = read_head(path)
    assert head.schedule == Schedule(cron="*/15 * * * *", timezone="Europe/Berlin", missed="all", overlap="wait")
    assert (head.pipeline, head.owner, head.tags, head.path) == ("crm", "data-team", ("sales", "eu"), path)
    assert head.runbook == "https://wiki.example/crm"
    assert "password" not in repr(head)


def test_the_head_says_what_a_load_of_the_file_says(tmp_path: Path) -> None:
    text = (
        FILE.replace("secret('gone')", "env_var('X', 'y')")
        .replace("pipeline: crm\n", "")
        .replace('{cron: "*/15 * * * *", ', "{every: 1d12h, ")
    )
    path = write(tmp_path, f"{text}store: runs.db\n".replace("runs.db", "sqlite:///runs.db"))
    head, pipeline = read_head(path), load_pipeline(path)
    assert pipeline.schedule is not None
    assert (head.pipeline, head.schedule) == (pipeline.pipeline, pipeline.schedule.value)
    assert (head.owner, head.tags, head.runbook) == (pipeline.owner, pipeline.tags, pipeline.runbook)
    assert head.store().url == pipeline.store_url
    assert head.schedule is not None
    assert head.schedule.every_s == 36 * 3600


def test_a_schedule_stays_what_it_is_in_a_pipeline_made_by_hand(tmp_path: Path) -> None:
    """A loaded pipeline is loaded again for each retry, from what it was given."""
    from syncblocks.sync.config import Pipeline

    made = Pipeline.model_validate(
        {
            "pipeline": "crm",
            "schedule": {"every": "15m"},
            "expect": {"rows": {"min": 1, "in": "1d"}},
            "tags": ["a"],
            "source": {"connector": "csv", "config": {"path": "data"}},
            "destination": {"connector": "duckdb"},
            "streams": [{"stream": "a"}],
        }
    )
    loaded = load_pipeline(load_pipeline(made, folder=tmp_path), folder=tmp_path)
    assert loaded.schedule is not None
    assert loaded.expect is not None
    assert loaded.expect.value == Expect(rows=Volume(1, 86_400))
    assert (loaded.schedule.value, loaded.tags) == (Schedule(every_s=900), ("a",))


def test_only_the_template_of_the_store_is_filled_in(tmp_path: Path) -> None:
    default = f"sqlite:///{tmp_path}/.syncblocks/store.db"
    assert store(tmp_path, "") == (default, frozenset())
    assert store(tmp_path, "store: sqlite:///a.db") == (f"sqlite:///{tmp_path}/a.db", frozenset())
    url = "postgresql://sync:hunter22@db/runs"
    assert store(tmp_path, "store: \"{{ env_var('URL') }}\"", {"URL": url}) == (url, frozenset({url, "hunter22"}))
    secret = {"SYNCBLOCKS_SECRET_DB": "hunter22"}
    assert store(tmp_path, "store: postgres://sync:{{ secret('db') }}@db/runs", secret) == (
        url,
        frozenset({"hunter22"}),
    )
    lines = "variables: {host: db, other: \"{{ secret('gone') }}\"}\nstore: postgresql://{{ variables('host') }}/runs"
    assert store(tmp_path, lines, {}) == ("postgresql://db/runs", frozenset())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("store: \"{{ env_var('GONE') }}\"", r"crm.yaml:9: store: .*not set"),
        ("store: \"{{ variables('x') }}\"\nvariables: {x: \"{{ secret('gone') }}\"}", "'x' is a template itself"),
        ('store: "sqlite:///{{ ds }}.db"', "'ds' is not known here"),
        ("store: \"mysql://u:{{ secret('db') }}@db/x\"", "no such kind of run store"),
        ("store: runs.db", "must be a URL"),
        ("store: 5", "must be a URL"),
        ('store: " "', "must be a URL"),
    ],
)
def test_a_store_that_is_wrong_is_an_error_of_the_store_alone(tmp_path: Path, line: str, said: str) -> None:
    head = read_head(write(tmp_path, f"{FILE}{line}\n"))
    with pytest.raises(ConfigError, match=said) as caught:
        head.store({"SYNCBLOCKS_SECRET_DB": "hunter22"})
    assert caught.value.key == "store"
    assert "hunter22" not in str(caught.value)


def test_all_mistakes_of_the_head_are_told_with_their_lines(tmp_path: Path) -> None:
    text = FILE.replace("missed: all", "missed: al").replace("https://", "")
    with pytest.raises(ConfigError) as caught:
        read_head(write(tmp_path, text))
    found = [(each.line, each.key, each.nearest) for each in (caught.value, *caught.value.others)]
    assert found == [(2, "schedule.missed", "all"), (5, "runbook", None)]


def test_what_is_expected_of_a_stream_is_what_the_last_entry_about_it_says(tmp_path: Path) -> None:
    text = FILE.replace(
        '[{stream: "*"}]',
        """
  - {stream: "{{ variables('x') }}"}
  - {stream: "*", expect: {every: 1d}}
  - {stream: "log_*", expect: }
  - {stream: orders, expect: {within: 30m, rows: {min: 5, in: 1h}}}
  - {stream: old, expect: {every: 1h}, selected: false}
""",
    )
    head = read_head(write(tmp_path, f"{text}expect: {{rows: {{min: 1, in: }}}}\n"))
    assert head.expect == Expect(rows=Volume(1))
    assert head.expects(["log_a", "users"]) == {
        "users": Expect(every_s=86_400),
        "orders": Expect(within_s=1800, rows=Volume(5, 3600)),
    }


def test_the_head_tells_of_a_key_that_nobody_knows(tmp_path: Path) -> None:
    """It failed with a TypeError at an unknown key of `schedule`."""
    text = FILE.replace("missed: all", "mised: all").replace('"*"', '"*", expect: {evry: 1h}')
    with pytest.raises(ConfigError) as caught:
        read_head(write(tmp_path, text))
    found = [(each.line, each.key, each.nearest) for each in (caught.value, *caught.value.others)]
    assert found == [(2, "schedule.mised", "missed"), (8, "streams[0].expect.evry", "every")]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('pipeline: "{{ env }}"', "pipeline"),
        ("schedule: {every: \"{{ variables('x') }}\"}", "schedule.every"),
        ("owner: \"{{ secret('x') }}\"", "owner"),
    ],
)
def test_what_a_server_reads_takes_no_template(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(ConfigError, match="takes no template") as caught:
        read_head(write(tmp_path, line))
    assert caught.value.key == key


def test_a_file_that_says_no_store_has_that_of_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, FILE.replace("secret('gone')", "env_var('X', 'y')"))
    for url, secrets in (
        ("postgresql://sync:pa55word@db.example/runs", {"pa55word"}),
        (f"sqlite:///{tmp_path}/runs.db", set()),
    ):
        environ = {"SYNCBLOCKS_STORE": f" {url} "}
        pipeline = load_pipeline(path, environ=environ)
        assert (read_head(path).store(environ), pipeline.store_url) == ((url, secrets), url)
        assert secrets <= pipeline.secret_values
        assert (pipeline.warnings, pipeline.written_secrets) == ((), ())
    assert read_head(path).store({"SYNCBLOCKS_STORE": ""}).url == f"sqlite:///{tmp_path}/.syncblocks/store.db"
    said = write(tmp_path, f"{path.read_text()}store: sqlite:///said.db\n")
    assert read_head(said).store(environ).url == load_pipeline(said, environ=environ).store_url
    assert read_head(said).store(environ).url == f"sqlite:///{tmp_path}/said.db"


def test_a_wrong_store_of_the_environment_is_told_without_its_value(tmp_path: Path) -> None:
    path = write(tmp_path, FILE.replace("secret('gone')", "env_var('X', 'y')"))
    environ = {"SYNCBLOCKS_STORE": "mysql://u:pa55word@h/x"}
    for read in (lambda: load_pipeline(path, environ=environ), lambda: read_head(path).store(environ)):
        with pytest.raises(ConfigError, match=r"^\$SYNCBLOCKS_STORE: there is no such kind of run store") as caught:
            read()
        assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("store", ["sqlite:///state/runs.db", "postgresql://db.example/runs"])
def test_the_output_of_ticks_has_one_folder_whoever_starts_them(tmp_path: Path, store: str) -> None:
    more = f"store: {store}\nexecutor: {{dask: 'tcp://h:1', spool: shared}}\n"
    pipeline = load_pipeline(write(tmp_path, FILE.replace("secret('gone')", "env_var('X', 'y')") + more))
    assert pipeline.tick_log(7) == tick_folder(read_head(tmp_path / "crm.yaml").store().url, tmp_path) / "7.log"
    assert pipeline.tick_log(7).parent in (tmp_path / "state" / "ticks", tmp_path / ".syncblocks" / "ticks")
