"""The page about Delta tables: its pipeline, command and program, run as they stand there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import RunCLI
from tests.docs import examples

PAGE = "docs/delta.md"


def test_the_lake_of_the_page_is_read_back(tmp_path: Path, run_cli: RunCLI, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("deltalake")
    example = examples("yaml", page=PAGE)[0]
    (tmp_path / str(example.file)).write_text(example.text)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/orders.csv").write_text("id,total\n1,12.5\n2,7\n")
    (command,) = examples("console", page=PAGE)
    done = run_cli(shlex.split(command.text)[1:], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (program,) = examples("text", page=PAGE)
    exec(program.text.replace('"lake/', f'"{tmp_path}/lake/'), {})
    assert "total: [[12.5,7]]" in capsys.readouterr().out
