"""Files that are no pipeline file: one error each, soon, and without what a template gave."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from tests.budget import within
from tests.sync.config.test_config_mistakes import BASE, failure
from tests.sync.config.test_config_mistakes import folder as folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf" + BASE.encode(), "byte order mark"),
        (BASE.encode("utf-16"), "UTF-16"),
        (BASE.encode("utf-16-le"), "U+0000"),
        (BASE.encode("utf-32"), "UTF-32"),
        (b"pipeline: \xff\xfe", "not UTF-8"),
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- a\n", "holds a list"),
        (b"just text", "holds text"),
        (b"\0", "UTF-16"),
    ],
)
def test_a_file_that_is_not_plain_utf8_yaml_says_how_to_save_it(folder: Path, content: bytes, message: str) -> None:
    (folder / "p.yaml").write_bytes(content)
    error = failure(folder / "p.yaml")
    assert message in error.message
    assert error.line == 1


def test_a_file_that_is_not_there_names_the_nearest_one(folder: Path) -> None:
    (folder / "crm.yaml").write_text(BASE)
    error = failure(folder / "crn.yaml")
    assert (error.nearest, error.line) == ("crm.yaml", None)
    assert "is a folder" in failure(folder).message
    assert "cannot be read" in failure(folder / "a\0b").message


def test_a_pipe_is_refused_instead_of_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    assert "not a regular file" in failure(folder / "pipe.yaml").message


def test_variables_of_the_command_line_must_be_json(folder: Path) -> None:
    (folder / "p.yaml").write_text(BASE)
    for value in (object(), {"$template": "x"}, float("nan"), {1: 2}, b"x"):
        assert failure(folder / "p.yaml", variables={"x": value}).key == "variables.x"


def bomb() -> str:
    names = "abcdefghi"
    levels = [f"{name}: &{name} [{', '.join(['*' + before] * 9)}]" for before, name in itertools.pairwise(names)]
    return "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(levels)


@pytest.mark.one_of
@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        BASE + "#" * 10_000_000,
        "[" * 900_000,
        "a: " + "{a: " * 200_000,
        "- " * 450_000,
        "a: [" + "x," * 450_000 + "]",
        "a: &m {" + ",".join(f"k{i}: 1" for i in range(20_000)) + "}\n"
        + "".join(f"m{i}: {{<<: *m}}\n" for i in range(20_000)),
        "".join(f"k{i}: '{{{{ x{i} }}}}'\n" for i in range(30_000)),
        BASE.replace("{path: a.db}", "[" + ", ".join(f'"{{{{ ds }}}}{i}"' for i in range(20_000)) + "]"),
        BASE.replace("a.db", "'{{ " + "(" * 30_000 + " }}'"),
        BASE.replace("a.db", "'{{ " + "not " * 15_000 + "ds }}'"),
        BASE.replace("a.db", "'{{ " + "ds ~ " * 20_000 + "ds }}'"),
        BASE.replace("a.db", "'" + "{{" * 400_000 + "'"),
        BASE.replace("stream: users", f"stream: {'[' * 400_000}"),
        BASE.replace("stream: users", f"stream: '{'*' * 400_000}['"),
        BASE.replace("sqlite", "x" * 900_000),
        "x" * 500_000 + ": 1",
        "source:\n" + "".join(f"  k{i}: 1\n" for i in range(50_000)),
    ],
    ids=range(18),
)  # fmt: skip
def test_a_hostile_file_is_one_error_within_two_seconds(folder: Path, text: str) -> None:
    path = folder / "p.yaml"
    path.write_text(text)
    with within(2):
        error = failure(path)
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    "change",
    [
        ("connector: sqlite", "connector: \"{{ env_var('CANARY') }}\""),
        ("stream: users", "stream: \"[{{ env_var('CANARY') }}\""),
        ("on: [source]", "on: [\"{{ env_var('CANARY') }}\"]"),
        ("file: alerts.py", "file: \"{{ secret('canary') }}.py\""),
        ("pipeline: crm", "retries: \"{{ secret('canary') }}\""),
        ("pipeline: crm", "spool_limit: \"{{ variables('c') }}\""),
        ("pipeline: crm", "concurrency: \"{{ env_var('CANARY') }}\""),
        ("pipeline: crm", "store: \"{{ secret('canary') }}\""),
        ("pipeline: crm", "store: \"{{ secret('canary') }}://x\""),
        ("pipeline: crm", "store: \"mysql://u:{{ secret('canary') }}@h\""),
        ("[id]", "[id]\n    write_disposition: \"{{ env_var('CANARY') }}\""),
        ("connector: sqlite", "connector: sqlite\n  block: \"{{ env_var('CANARY') }}\"\n  blok: 1"),
        ("{path: a.db}", "\"{{ env_var('CANARY') }}\""),
        ("path: a.db", "path: \"{{ env_var('CANARY', 1, 2) }}\""),
        ("path: a.db", "path: \"{{ secret(env_var('CANARY')) }}\""),
        ("path: a.db", "path: \"{{ variables(secret('canary')) }}\""),
        ("path: a.db", "path: \"{{ env_var(secret('canary')) }}\""),
    ],
    ids=range(17),
)
@pytest.mark.parametrize("canary", ["c4n4ry!value/äß", "k9"])
def test_no_error_shows_a_value_that_a_template_gave(folder: Path, change: tuple[str, str], canary: str) -> None:
    path = folder / "p.yaml"
    path.write_text(BASE.replace(*change, 1).replace("{region: eu}", "{c: \"{{ secret('canary') }}\"}", 1))
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path, environ={"CANARY": canary, "SYNCBLOCKS_SECRET_CANARY": canary})
    shown = f"{caught.value} {caught.value.__cause__!r} {caught.value.allowed} {caught.value.nearest}"
    assert canary not in shown.replace(str(folder), "")
