"""Credentials that a connector changes: kept for the next run, unless the pipeline file has newer ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from syncblocks.connectors.airbyte import config_file
from syncblocks.connectors.airbyte.config_file import ConfigFile
from syncblocks.connectors.errors import ConnectorConfigError, RetriableError

GIVEN = {"refresh_token": "first", "account": 7}


def test_what_the_connector_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.json"
    file = ConfigFile(path, GIVEN)
    assert file.read() == GIVEN
    file.write({**GIVEN, "refresh_token": "second", "migrated": True})
    assert file.read() == {"refresh_token": "second", "account": 7, "migrated": True}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_key_that_has_changed_in_the_pipeline_file_wins(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    ConfigFile(path, GIVEN).write({"refresh_token": "second", "account": 7, "extra": 1})
    assert ConfigFile(path, {"refresh_token": "by hand", "account": 7}).read() == {
        "refresh_token": "by hand",
        "account": 7,
        "extra": 1,
    }
    assert ConfigFile(path, {"refresh_token": "first"}).read() == {"refresh_token": "second", "extra": 1}
    assert ConfigFile(path, {**GIVEN, "extra": 2}).read() == {"refresh_token": "second", "account": 7, "extra": 2}


def test_a_key_that_the_connector_has_dropped_stays_away(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    ConfigFile(path, {"old_name": 1}).write({"new_name": 1})
    assert ConfigFile(path, {"old_name": 1}).read() == {"new_name": 1}


def test_a_file_that_others_can_read_or_that_is_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    file = ConfigFile(path, GIVEN)
    file.write(GIVEN)
    path.chmod(0o644)
    with pytest.raises(ConnectorConfigError, match="chmod 600"):
        file.read()
    path.chmod(0o600)
    for text in ("{", "[]", json.dumps({"config": 1, "given": {}})):
        path.write_text(text)
        with pytest.raises(ConnectorConfigError, match="cannot be read"):
            file.read()


def test_it_is_locked_while_a_connector_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_file, "_WAIT_S", 0.0)
    path = tmp_path / "c.json"

    def is_refused() -> bool:
        with pytest.raises(RetriableError, match="another run"), ConfigFile(path, {}).locked():
            pass
        return True

    with ConfigFile(path, GIVEN).locked():
        assert is_refused()
    holder = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, f"{path}.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        assert is_refused()
        other.kill()
    with ConfigFile(path, GIVEN).locked():
        pass
