"""What an error is called on the command line."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.sync.cli.errors import describe
from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import write_shop


def test_a_machine_without_room_is_no_bug_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")  # what CPython says where the system refuses one

    name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    monkeypatch.setattr(threading, name, refused)
    with pytest.raises(RuntimeError) as refusal:
        threading.Thread(target=int).start()
    assert describe(refusal.value).code == "threads"
    with pytest.raises(MemoryError) as lack:
        pa.allocate_buffer(2**62)
    problem = describe(lack.value)
    assert (problem.code, problem.exit_code) == ("memory", 1)
    assert "concurrency" in problem.hint


def test_what_nobody_expects_is_called_a_bug() -> None:
    problem = describe(RuntimeError("a thread is gone"))
    assert problem.code == "internal"
    assert "--debug" in problem.hint


def test_a_pattern_that_the_shell_has_expanded_is_told(run_cli: RunCLI, tmp_path: Path) -> None:
    """`--stream o*` beside files that begin with o: the error spoke of a stream or of an argument that nobody wrote."""
    file = str(write_shop(tmp_path))
    (tmp_path / "orders.csv").touch()
    (tmp_path / "out.txt").touch()
    hint = "'orders.csv' is a file in this folder"
    for command in (
        ["run", file, "--stream", "orders.csv"],
        ["preview", file, "--stream", "orders.csv"],
        ["run", file, "--stream", "orders.csv", "out.txt"],
        ["run", "--stream", "orders.csv", "out.txt"],
    ):
        done = run_cli(command, tmp_path)
        assert (done.returncode, hint in done.stderr, "--stream 'o*'" in done.stderr) == (2, True, True), done.stderr
    (tmp_path / "customers").mkdir()
    for command in (
        ["run", file, "--stream", "orders.cvs"],
        ["run", file, "--stream", "nothing*"],
        ["run", file, "--stream", "customers", "--tag", "no-tag"],
        ["run", file, "--stream", "customers", "--stream", "nothing"],
    ):
        done = run_cli(command, tmp_path)
        assert (done.returncode, "is a file" in done.stderr) == (2, False), done.stderr


def test_a_server_that_cannot_be_reached_is_told_once_with_the_place_of_its_url(
    run_cli: RunCLI, tmp_path: Path
) -> None:
    file = write_shop(tmp_path)
    source = "source:\n  connector: postgres\n  config:\n    url: postgresql://me@nowhere.invalid/crm\n"
    file.write_text(file.read_text().replace("source: {block: load, connector: csv, config: {path: data}}\n", source))
    place = f"{file}:5: source.config.url: cannot connect to postgres://nowhere.invalid/crm: "
    for command in ("run", "plan", "check"):
        done = run_cli([command, str(file)], tmp_path)
        assert done.returncode == 1
        assert (done.stdout + done.stderr).count(place) == 1, done.stdout + done.stderr
        assert (done.stdout + done.stderr).count("nowhere.invalid/crm: ") == 1
