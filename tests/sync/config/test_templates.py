"""Interpolation: one pass, only the names of the contract, and secrets from three places in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.config.templates import TemplateError, TemplateValues, has_template, render, template_names
from syncblocks.sync.secrets import Redactor
from tests.budget import within


def scope(folder: Path, **environ: str) -> TemplateValues:
    return TemplateValues(
        folder=folder,
        environ={"SYNCBLOCKS_SECRETS_DIR": str(folder / "mounted"), **environ},
        variables={"region": "eu", "n": 3, "list": [1, {"a": None}], "on": True, "text": "{{ secret('x') }}"},
        defaults={"ds": "2023-04-26", "hr": "20", "env": "dev", "pipeline": {"name": "crm", "uuid": "crm"}},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ env_var('A') }}", "x/y z"),
        ("{{env_var('A')}}", "x/y z"),
        ("{{ env_var('GONE', 'default') }}", "default"),
        ("{{ env_var('GONE', default='d') }}", "d"),
        ("{{ env_var('EMPTY', 'default') }}", ""),
        ("{{ env_var('A') | urlencode }}", "x%2Fy%20z"),
        ("{{ variables('region') | upper }}-{{ ds }}", "EU-2023-04-26"),
        ("{{ variables('n') }}", 3),
        ("{{ variables('list') }}", [1, {"a": None}]),
        ("{{ variables('on') }}", True),
        (" {{ variables('n') }}", " 3"),
        ("{{ variables('list') }}!", '[1, {"a": null}]!'),
        ("{{ variables('on') }}!", "true!"),
        ("{{ env_var('N') }}", "5"),
        ("{{ pipeline.name }}/{{ pipeline.uuid }}", "crm/crm"),
        ("{{ 'a' if hr == '20' else 'b' }}", "a"),
        ("{{ variables('region') ~ '_' ~ ds }}", "eu_2023-04-26"),
        ("{{ '{{' }}", "{{"),
        ("line {{ ds }}\n", "line 2023-04-26\n"),
        ("<b>{{ variables('region') }}</b>", "<b>eu</b>"),
    ],
)
def test_a_template_is_filled(tmp_path: Path, text: str, expected: Any) -> None:
    value = render(text, scope(tmp_path, A="x/y z", N="5", EMPTY="")).value
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("text", ["{{ env_var('A') }}", "{{ variables('text') }}", "x{{ env_var('A') }}{{ ds }}"])
def test_what_comes_in_is_never_looked_at_as_a_template_again(tmp_path: Path, text: str) -> None:
    value = render(text, scope(tmp_path, A="{{ secret('x') }}", SYNCBLOCKS_SECRET_X="opened")).value
    assert "{{ secret('x') }}" in value
    assert "opened" not in value


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ pipeline.__init__ }}",
        "{{ pipeline['name'] }}",
        "{{ env_var.__globals__ }}",
        "{{ env_var('A').join(ds) }}",
        "{{ env_var('A')('B') }}",
        "{{ 'x' * 10000000000 }}",
        "{{ 10 ** 10000000 }}",
        "{{ range(10) }}",
        "{{ lipsum() }}",
        "{{ cycler }}",
        "{{ self }}",
        "{{ dict(a=1) }}",
        "{{ [1, 2] }}",
        "{{ {'a': 1} }}",
        "{{ (1, 2) }}",
        "{{ ds[0] }}",
        "{{ ds | attr('x') }}",
        "{{ ds | map('upper') }}",
        "{{ ds is string }}",
        "{{ env_var(*ds) }}",
        "{{ env_var(secret('a')) }}",
        "{{ env_var }}",
        "{{ env_var() }}",
        "{{ env_var(1) }}",
        "{{ env_var('') }}",
        "{{ variables('region', 1) }}",
        "{{ pipeline }}",
        "{% set x = 1 %}",
        "{% for i in ds %}{{ i }}{% endfor %}",
        "{% import 'os' as os %}",
        "{% include '/etc/passwd' %}",
        "{% macro m() %}{% endmacro %}",
        "{{ }}",
        "{{ ds",
        "{{ ds ~ " + "(" * 50 + "ds" + ")" * 50 + " ~ 1 + 1 }}",
        "{{ " + "not " * 30 + "ds }}",
        "{{ " + "9" * 5000 + " }}",
    ],
)
def test_nothing_but_the_names_of_the_contract_is_let_in(tmp_path: Path, text: str) -> None:
    with within(1), pytest.raises(TemplateError):
        render(text, scope(tmp_path, A="x"))


def test_a_default_variable_is_known_only_where_it_has_a_value(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="not known here"):
        render("{{ stream }}", scope(tmp_path))
    known = scope(tmp_path).knowing(stream="public.users")
    assert render("{{ stream }}+{{ stream | table }}", known).value == "public.users+users"
    assert template_names("{{ stream }}{{ env_var('A') }}") == {"stream", "env_var"}


def test_text_without_braces_is_no_template() -> None:
    assert not has_template("50% {off} #{x}")
    assert has_template("{{ ds }}")
    assert has_template("{% if %}")


def test_what_was_given_away_is_noted_but_not_the_defaults_of_the_file(tmp_path: Path) -> None:
    found = render(
        "{{ env_var('A') }}{{ secret('s') }}{{ env_var('GONE', 'public') }}",
        scope(tmp_path, A="a1", SYNCBLOCKS_SECRET_S="s1"),
    )
    assert found.environment == {"a1"}
    assert found.secrets == {"s1"}


def put(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def test_secrets_are_looked_up_in_the_mounted_folder_then_in_the_own_one_then_in_the_environment(
    tmp_path: Path,
) -> None:
    here = scope(tmp_path, SYNCBLOCKS_SECRET_DB_URL="third")
    template = "{{ secret('db-url') }}"
    assert render(template, here).value == "third"
    put(tmp_path / ".syncblocks" / "secrets" / "db-url", b"second\n")
    assert render(template, here).value == "second"
    put(tmp_path / "mounted" / "db-url", b"first\r\n", mode=0o444)
    assert render(template, here).value == "first"


def test_a_secret_keeps_all_but_its_last_line_break(tmp_path: Path) -> None:
    put(tmp_path / ".syncblocks" / "secrets" / "pem", b" a\nb\n\n")
    assert render("{{ secret('pem') }}", scope(tmp_path)).value == " a\nb\n"


def test_a_mounted_secret_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "data" / "x", b"linked")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "x").symlink_to(tmp_path / "data" / "x")
    assert render("{{ secret('x') }}", scope(tmp_path)).value == "linked"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_an_own_secret_that_others_can_touch_is_refused_with_the_way_to_mend_it(tmp_path: Path, mode: int) -> None:
    put(tmp_path / ".syncblocks" / "secrets" / "x", b"hidden", mode=mode)
    with pytest.raises(TemplateError, match="chmod 600") as caught:
        render("{{ secret('x') }}", scope(tmp_path, SYNCBLOCKS_SECRET_X="other"))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"x" * 70_000])
def test_a_secret_that_is_not_text_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "mounted" / "x", content)
    with pytest.raises(TemplateError) as caught:
        render("{{ secret('x') }}", scope(tmp_path))
    assert len(str(caught.value)) < 300
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "..", ".", ".hidden", "a b", "x\n", "ä", "a" * 300])
def test_the_name_of_a_secret_never_leaves_its_folder(tmp_path: Path, name: str) -> None:
    put(tmp_path / "x", b"outside")
    with pytest.raises(TemplateError, match="not a name of a secret"):
        render(f"{{{{ secret('{name}') }}}}".replace("\n", "\\n"), scope(tmp_path))


def test_a_secret_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        render("{{ secret('db.url') }}", scope(tmp_path))
    assert all(
        place in str(caught.value)
        for place in ("mounted/db.url", ".syncblocks/secrets/db.url", "$SYNCBLOCKS_SECRET_DB_URL")
    )


@pytest.mark.parametrize("value", ["a\0b", "a\udcffb"])
def test_an_environment_variable_that_is_not_text_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(TemplateError, match="not text"):
        render("{{ env_var('A') }}", scope(tmp_path, A=value))


ACCOUNT = (
    '{"db": {"user": "ann", "hosts": [{"name": "h1", "port": 5433}]}, "password": "hid\u00f6en-canary", "on": true}'
)


def timed(folder: Path, **environ: str) -> TemplateValues:
    return scope(folder, ACCOUNT=ACCOUNT, **environ).knowing(execution_partition="daily/20240302T013059")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ n_days_ago(0) }}", "2024-03-02"),
        ("{{ n_days_ago(2) }}", "2024-02-29"),
        ("{{ n_weeks_ago(1) }}", "2024-02-24"),
        ("{{ n_hours_ago(2) }}", "2024-03-01T23:30:59+00:00"),
        ("from {{ n_minutes_ago(31) }}", "from 2024-03-02T00:59:59+00:00"),
        ("{{ json_value(env_var('ACCOUNT'), 'db.user') }}", "ann"),
        ("{{ json_value(env_var('ACCOUNT'), 'db.hosts[0].port') }}", "5433"),
        ("{{ json_value(env_var('ACCOUNT'), '$.db.hosts[0].name') | upper }}", "H1"),
        ("{{ json_value(env_var('ACCOUNT'), 'on') }}", "true"),
        ("{{ json_value(env_var('ACCOUNT'), 'db.hosts') }}", '[{"name": "h1", "port": 5433}]'),
        ("{{ json_value(variables('list'), '[0]') }}-{{ json_value(variables('list'), '[1].a') }}", "1-null"),
        ("{{ json_value(secret('account'), 'password') | urlencode }}", "hid%C3%B6en-canary"),
    ],
)
def test_functions_of_mage_work(tmp_path: Path, text: str, expected: str) -> None:
    assert render(text, timed(tmp_path, SYNCBLOCKS_SECRET_ACCOUNT=ACCOUNT)).value == expected


def test_a_part_of_a_secret_is_masked(tmp_path: Path) -> None:
    found = render(
        "{{ json_value(secret('account'), 'password') }}", timed(tmp_path, SYNCBLOCKS_SECRET_ACCOUNT=ACCOUNT)
    )
    assert Redactor(found.secrets).redact(f"password {found.value} is wrong") == "password *** is wrong"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ n_days_ago }}", r"n_days_ago is a function: n_days_ago\(7\)"),
        ("{{ n_days_ago('7') }}", "needs a whole number"),
        ("{{ n_days_ago(1.5) }}", "needs a whole number"),
        ("{{ n_days_ago(-1) }}", "needs a whole number"),
        ("{{ n_days_ago(True) }}", "needs a whole number"),
        ("{{ n_days_ago() }}", "needs a whole number"),
        ("{{ n_days_ago(variables('n')) }}", "needs a whole number"),
        ("{{ n_days_ago(9999999) }}", "before the year 1"),
        ("{{ n_days_ago(99999999999999999999) }}", "before the year 1"),
        ("{{ n_dayz_ago(1) }}", "'n_dayz_ago' is not defined"),
        ("{{ json_value('{}', 'a') }}", "needs a function and a path"),
        ("{{ json_value(env_var('ACCOUNT')) }}", "needs a function and a path"),
        ("{{ json_value(env_var('ACCOUNT'), ds) }}", "needs a path in quotes"),
        ("{{ json_value(env_var('ACCOUNT'), 'a..b') }}", "needs a path in quotes"),
        ("{{ json_value(env_var('ACCOUNT'), '') }}", "needs a path in quotes"),
        ("{{ json_value(env_var('ACCOUNT'), 'db.host') }}", "no 'host' on the way to 'db.host'"),
        ("{{ json_value(env_var('ACCOUNT'), 'db.hosts[1].name') }}", r"no '1' on the way to 'db.hosts\[1\].name'"),
        ("{{ json_value(env_var('ACCOUNT'), 'password.x') }}", "no 'x' on the way"),
        ("{{ json_value(env_var('PLAIN'), 'a') }}", "is no JSON"),
        ("{{ json_value(env_var(ds), 'a') }}", "needs a name in quotes"),
    ],
)
def test_a_wrong_call_is_told_without_a_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message) as wrong:
        render(text, timed(tmp_path, PLAIN="plain-canary"))
    assert "canary" not in f"{wrong.value} {wrong.value.allowed}"


def test_a_time_ago_needs_the_time_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="the run's time is not known"):
        render("{{ n_days_ago(1) }}", scope(tmp_path))
