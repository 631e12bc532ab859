"""Hooks in the pipeline file: what they may say, and what each mistake is told as."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from syncblocks.sync.config import Pipeline, load_pipeline, pipeline_json_schema
from syncblocks.sync.config.hook_texts import describe_hook
from syncblocks.sync.delivery.hook_settings import block_digest
from syncblocks.sync.delivery.subscriptions import load_user_code
from syncblocks.sync.errors import ConfigError

BASE = """\
pipeline: crm
variables: {region: eu, key: "{{ secret('k') }}"}
source: {block: load, connector: csv, config: {path: data}}
destination: {connector: duckdb, config: {path: w.duckdb}}
streams: [{stream: "*"}]
callbacks:
"""
ENVIRON = {
    "URL": "https://hooks.example.com/x",
    "SYNCBLOCKS_SECRET_K": "k3y-of-slack",
    "SYNCBLOCKS_SECRETS_DIR": "/none",
}

# Each: the callback block; line within it, key, a part of the message, the nearest match.
MISTAKES: list[tuple[str, int, str, str, str | None]] = [
    ("block: a", 1, "callbacks[0]", "needs one of file, notify, webhook, shell, sql", None),
    ("shell: a\nsql: b", 1, "callbacks[0]", "has shell and sql: give each a callback block of its own", None),
    ("file: a.py\nshell: b", 1, "callbacks[0]", "has file and shell", None),
    ("notfy: json://x", 1, "callbacks[0].notfy", "unknown key", "notify"),
    ("file: a.py\nstatus: [failure]", 2, "callbacks[0].status", "is not for file", None),
    ("shell: a\nstatus: [sucess]", 2, "callbacks[0].status[0]", "no such status: 'sucess'", "success"),
    ("shell: a\nstatus: failure", 2, "callbacks[0].status", "must be a list", None),
    ("shell: a\nstatus: []", 2, "callbacks[0].status", "is an empty list", None),
    ("shell: a\nmessage: hi", 2, "callbacks[0].message", "needs notify, not shell", None),
    ("sql: select 1\ntitle: hi", 2, "callbacks[0].title", "needs notify, not sql", None),
    # conditions and templates
    ("shell: a\nwhen: is_last", 2, "callbacks[0].when", "'is_last' is not defined", None),
    ("shell: a\nwhen: is_last_blok_run", 2, "callbacks[0].when", "is not defined", "is_last_block_run"),
    ("file: a.py\nwhen: block_run.row == 0", 2, "callbacks[0].when", "block_run has no 'row'", "rows"),
    ("shell: a\nwhen: true", 2, "callbacks[0].when", "must be text", None),
    ("shell: a\nwhen: stream =", 2, "callbacks[0].when", "not a valid template", None),
    ("shell: a\nwhen: error", 2, "callbacks[0].when", "'error' is not defined", None),
    ("shell: a\nwhen: totals.rows > 1", 2, "callbacks[0].when", "attributes are not allowed", None),
    ("shell: a\non: [pipeline]\nwhen: stream == 'a'", 3, "callbacks[0].when", "'stream' is not", "failed_streams"),
    ("shell: a\nwhen: env_var('GONE') == 'a'", 2, "callbacks[0].when", "environment variable 'GONE' is not set", None),
    ("notify: json://x\nmessage: '{{ strem }}'", 2, "callbacks[0].message", "'strem' is not defined", "stream"),
    ("notify: json://x\nmessage: '{{ stream | uper }}'", 2, "callbacks[0].message", "no filter 'uper'", "upper"),
    ("notify: json://x\ntitle: '{{ secret(\"gone\") }}'", 2, "callbacks[0].title", "no secret 'gone'", None),
    ("notify: json://x\nmessage: '{{ variables(\"regin\") }}'", 2, "callbacks[0].message", "no variable", "region"),
    ("notify: json://x\nmessage: ' '", 2, "callbacks[0].message", "is empty", None),
    # settings
    ("notify: slack.com", 1, "callbacks[0].notify", "is not an Apprise URL", None),
    ("notify: [json://x, 3]", 1, "callbacks[0].notify", "item 2 is not an Apprise URL", None),
    ("notify: []", 1, "callbacks[0].notify", "must be an Apprise URL, or a list of them", None),
    ("webhook: https://x", 1, "callbacks[0].webhook", "must be a mapping", None),
    ("webhook: {secret: a}", 1, "callbacks[0].webhook.url", "is required", None),
    ("webhook: {url: 'ftp://x'}", 1, "callbacks[0].webhook.url", "must be a URL", None),
    ("webhook: {url: 'https://x:y/'}", 1, "callbacks[0].webhook.url", "must be a URL", None),
    ("webhook: {ur: 'https://x'}", 1, "callbacks[0].webhook.ur", "unknown key", "url"),
    (
        "webhook: {url: 'https://x', headers: {A b: c}}",
        1,
        "callbacks[0].webhook.headers",
        "not a name of a header",
        None,
    ),
    (
        "webhook: {url: 'https://x', headers: {host: c}}",
        1,
        "callbacks[0].webhook.headers",
        "is set by syncblocks",
        None,
    ),
    ('webhook: {url: "https://x", headers: {A: "b\\nc"}}', 1, "callbacks[0].webhook.headers", "line break", None),
    ("shell: []", 1, "callbacks[0].shell.command", "must be a list of texts", None),
    ("shell: [sleep, 3]", 1, "callbacks[0].shell.command", "a number, true and false need quotes", None),
    ("shell: 3", 1, "callbacks[0].shell.command", "must be a command", None),
    ("shell: ''", 1, "callbacks[0].shell.command", "is empty", None),
    ("shell: {command: a, env: {A-B: x}}", 1, "callbacks[0].shell.env", "is not a name of a variable", None),
    ("sql: {statment: a}", 1, "callbacks[0].sql.statment", "unknown key", "statement"),
    ("sql: insert into t values (:strem)", 1, "callbacks[0].sql.statement", "no parameter :strem", "stream"),
    ("sql: select :block_run", 1, "callbacks[0].sql.statement", "no parameter :block_run", "block_uuid"),
    ("sql: {statement: select 1, parameters: {n: 1}}", 1, "callbacks[0].sql.parameters.n", "is not used", None),
    ("sql: {statement: 'select :n', parameters: {n: [1]}}", 1, "callbacks[0].sql.parameters", "value of n must", None),
    ("sql: {statement: 'select :n', parameters: {n: '{{ x }}'}}", 1, "callbacks[0].sql.parameters.n", "'x'", None),
    ("sql: {statement: 'select 1', parameters: {a-b: 1}}", 1, "callbacks[0].sql.parameters", "not a name", None),
    ("sql: select '{{ stream }}'", 1, "callbacks[0].sql", "'stream' is not known here", None),
]


def load(folder: Path, *blocks: str, **environ: str) -> Pipeline:
    (folder / "a.py").write_text("@callback\ndef a(**kwargs): ...\n")
    file = folder / "crm.yaml"
    text = "".join("  - " + block.replace("\n", "\n    ") + "\n" for block in blocks)
    file.write_text(BASE + text)
    return load_pipeline(file, environ={**ENVIRON, **environ})


@pytest.mark.parametrize(("block", "line", "key", "message", "nearest"), MISTAKES)
def test_a_mistake_is_told_with_its_place(
    block: str, line: int, key: str, message: str, nearest: str | None, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, block)
    error = caught.value
    assert (error.key, error.line, error.nearest) == (key, line + 6, nearest), str(error)
    assert message in str(error)


def test_a_block_is_named_after_its_kind_and_called_for_what_it_says(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        "notify: json://x",
        "shell: a",
        "webhook: {url: \"{{ env_var('URL') }}\"}",
        "sql: select 1\nstatus: [failure, recovered]",
        "file: a.py",
    )
    assert [block.block for block in pipeline.callbacks] == ["notify", "shell", "webhook", "sql", "a"]
    assert pipeline.callbacks[0].statuses == ("success", "failure", "cancelled")
    assert pipeline.callbacks[1].statuses == ("success",)
    assert pipeline.callbacks[3].statuses == ("failure", "recovered")
    code = load_user_code(pipeline)
    served = [(item.callback_block, item.function, item.status) for item in code.subscriptions]
    assert served[:4] == [
        ("notify", "notify", "success"),
        ("notify", "notify", "failure"),
        ("notify", "notify", "cancelled"),
        ("shell", "shell", "success"),
    ]


def test_two_hooks_of_one_kind_need_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has the same block name"):
        load(tmp_path, "shell: a", "shell: b")


def test_templates_over_the_event_are_left_alone_and_settings_filled(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        "notify: \"slack://{{ secret('k') }}/#data\"\nmessage: '{{ stream }}'\nwhen: \"{{ stream == 'a' }}\"",
        "sql: {statement: \"select :n, '{{ ds }}'\", parameters: {n: '{{ block_run.rows }}'}}",
        "shell: [echo, \"{{ variables('region') }}\"]",
    )
    notify, sql, shell = pipeline.callbacks
    assert notify.notify == ("slack://k3y-of-slack/#data",)
    assert (notify.message, notify.when) == ("{{ stream }}", "{{ stream == 'a' }}")
    assert sql.sql is not None
    assert sql.sql.statement == f"select :n, '{pipeline.ds}'"
    assert sql.sql.parameters == {"n": "{{ block_run.rows }}"}
    assert shell.shell is not None
    assert shell.shell.command == ("echo", "eu")
    assert "k3y-of-slack" in pipeline.secret_values
    assert "k3y-of-slack" not in repr(pipeline)


def test_a_secret_in_a_command_is_warned_of_and_none_in_its_environment(tmp_path: Path) -> None:
    seen, hidden = "shell: \"curl -H {{ secret('k') }}\"", "shell: {command: [curl], env: {T: \"{{ secret('k') }}\"}}"
    (warning,) = load(tmp_path, seen).warnings
    assert "give it in `shell.env`" in warning
    assert "k3y-of-slack" not in warning
    assert load(tmp_path, hidden).warnings == ()


def test_a_digest_tells_of_changes_and_nothing_of_secrets(tmp_path: Path) -> None:
    def digest(callback: str) -> str:
        return block_digest(load(tmp_path, callback), 0)

    for one, other in (
        ("shell: run {{ ds }}", "shell: run {{ hr }}"),
        ("shell: run", "shell: run\nwhen: index == 0"),
        ("shell: run", "shell: run\non: [pipeline]"),
        ("shell: run", "shell: [run]"),
        ("sql: select 1", "sql: select 2"),
        ("sql: select 1", "sql: {statement: 'select :a', parameters: {a: 1}}"),
        ("webhook: {url: 'https://h/p'}", "webhook: {url: 'https://h/q'}"),
        ("notify: json://h/a\nmessage: a", "notify: json://h/a\nmessage: b"),
    ):
        assert digest(one) != digest(other), (one, other)
        assert digest(one) == digest(one)
    for one, other in (
        ("webhook: {url: 'https://h/p', secret: whsec-one}", "webhook: {url: 'https://h/p', secret: whsec-two}"),
        ("notify: json://h/T0kenT0kenT0ken0", "notify: json://h/T0kenT0kenT0ken1"),
        ("shell: psql postgresql://u:pa55word@h/d", "shell: psql postgresql://u:pa66word@h/d"),
    ):
        assert digest(one) == digest(other)
    functions = load(tmp_path, "file: a.py")
    before = block_digest(functions, 0)
    (tmp_path / "a.py").write_text((tmp_path / "a.py").read_text() + "# more\n")
    assert block_digest(functions, 0) != before


def test_a_secret_in_the_file_is_warned_of(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        "notify: slack://T0kenT0kenT0ken0/B/C\nblock: one",
        "webhook: {url: 'https://h/p', secret: literal}",
        "notify: \"slack://{{ secret('k') }}/#data\"\nblock: two",
        "notify: json://localhost:8080/events\nblock: three",
    )
    assert [warning.split(": ")[1] for warning in pipeline.warnings] == [
        "callbacks[0].notify",
        "callbacks[1].webhook.secret",
    ]


def test_headers_that_the_file_names_are_secrets(tmp_path: Path) -> None:
    headers = {
        "X-Api-Key": "key-of-api",
        "Authorization": "Bearer bearer-token",
        "Auth": "Basic bWU6cGFzcy1vZi1tZQ==",
        "Cookie": "session=abc-cookie",
        "X-Trace": "no-secret",
        "X-Other-Token": "Token {{ secret('k') }}",
    }
    pipeline = load(tmp_path, f"webhook: {{url: 'https://h/p', headers: {json.dumps(headers)}}}")
    places = [f"callbacks[0].webhook.headers.{name}" for name in ("X-Api-Key", "Authorization", "Auth", "Cookie")]
    assert [warning.split(": ")[1] for warning in pipeline.warnings] == places
    hidden = {"key-of-api", "bearer-token", "pass-of-me", "me:pass-of-me", "session=abc-cookie", "k3y-of-slack"}
    assert hidden <= pipeline.secret_values
    assert "no-secret" not in pipeline.secret_values


def test_a_hook_is_listed_without_what_may_be_secret(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        "notify: [\"slack://{{ secret('k') }}/#data\", json://h/t0ken]",
        "webhook: {url: 'https://h/t0ken'}",
        "shell: [dbt, build]",
        "sql: {statement: select 1}",
        "file: a.py",
    )
    shown = [
        describe_hook(block, pipeline.raw(("callbacks", number, block.kind)))
        for number, block in enumerate(pipeline.callbacks)
    ]
    assert shown == [
        "notify slack://{{ secret('k') }}/#data, json://...",
        "webhook https://...",
        "shell dbt build",
        "sql select 1",
        "a.py",
    ]


def test_a_url_that_apprise_does_not_know_is_a_mistake_at_plan_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a URL that Apprise can use") as caught:
        load_user_code(load(tmp_path, "notify: [json://x, slak://T0ken]"))
    assert caught.value.key == "callbacks[0].notify[1]"
    assert "T0ken" not in str(caught.value)


@pytest.mark.full
def test_a_missing_extra_is_a_mistake_at_plan_time(tmp_path: Path) -> None:
    load(tmp_path, "notify: json://x")
    program = (
        "import sys; sys.modules['apprise'] = None\n"
        "from syncblocks.sync.delivery.subscriptions import load_user_code\n"
        "from syncblocks.sync.config import load_pipeline\n"
        "try: load_user_code(load_pipeline('crm.yaml'))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**ENVIRON},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "callbacks[0].notify: notify needs Apprise: pip install 'syncblocks[notify]'" in done.stdout, done


def test_statements_need_a_destination_that_runs_them(tmp_path: Path) -> None:
    from syncblocks.sync.session.session import open_session

    pipeline = load(tmp_path, "sql: select 1")
    open_session(pipeline).close()
    text = (tmp_path / "crm.yaml").read_text()
    (tmp_path / "crm.yaml").write_text(text.replace("duckdb, config: {path: w.duckdb}", "csv, config: {path: out}"))
    with pytest.raises(ConfigError, match=r"callbacks\[0\].sql: destination connector 'csv' runs no statements"):
        open_session(load_pipeline(tmp_path / "crm.yaml", environ=ENVIRON))


def test_a_condition_that_may_never_see_the_flag_is_warned_of(tmp_path: Path) -> None:
    when = "when: is_last_block_run"
    every = "status: [success, failure, cancelled]"
    code = load_user_code(load(tmp_path, f"shell: a\n{when}\nblock: one", f"shell: a\n{when}\nblock: two\n{every}"))
    (warning,) = code.warnings
    assert "callback block 'one': its condition may never see is_last_block_run=True" in warning


@pytest.mark.parametrize(
    ("block", "is_valid"),
    [
        ("notify: json://x\nmessage: a\nwhen: error", True),
        ("notify: [json://x]\nstatus: [failure]", True),
        ("webhook: {url: 'https://x', secret: a, headers: {A: b}}", True),
        ("webhook: {url: 'https://x', secret: null, headers: null}", True),
        ("shell: a", True),
        ("shell: [a, b]", True),
        ("sql: select 1", True),
        ("sql: {statement: select 1, parameters: {}}", True),
        ("sql: {}", False),
        ("webhook: {}", False),
        ("shell: [1]", False),
        ("block: a", False),
        ("shell: a\nsql: b", False),
        ("shell: a\nwhn: b", False),
    ],
)
def test_the_json_schema_agrees_with_the_loader(block: str, is_valid: bool, tmp_path: Path) -> None:
    document = yaml.safe_load(BASE + "  - " + block.replace("\n", "\n    "))
    # YAML 1.1 reads the key `on` as a boolean; none of these has it.
    validator = jsonschema.Draft202012Validator(pipeline_json_schema())
    assert validator.is_valid(document) is is_valid
    if is_valid:
        load(tmp_path, block)
    else:
        with pytest.raises(ConfigError):
            load(tmp_path, block)
