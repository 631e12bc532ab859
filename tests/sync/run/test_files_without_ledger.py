"""Files of a table that no ledger names: another program's, or ours whose ledger is lost. The plan has ways out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from syncblocks import run_pipeline
from syncblocks.sync.errors import ConfigError

MERGE = {"write_disposition": "merge", "key_properties": ["id"]}
APPEND = {"write_disposition": "append"}
FULL = {"replication_method": "FULL_TABLE", "bookmark_properties": None}


class Bench:
    """A CSV file that is read by `n` into a folder of files."""

    def __init__(self, folder: Path, connector: str, **settings: Any) -> None:
        self.folder = folder
        self.document: dict[str, Any] = {
            "pipeline": "p",
            "store": f"sqlite:///{folder}/store.db",
            "source": {"connector": "csv", "config": {"path": f"{folder}/t.csv"}},
            "destination": {"connector": connector, "config": {"path": f"{folder}/out"}},
            "streams": [
                {"stream": "t", "replication_method": "INCREMENTAL", "bookmark_properties": ["n"], **settings},
            ],
        }
        self.write(1, 2)

    def write(self, *values: int) -> None:
        (self.folder / "t.csv").write_text("id,n\n" + "".join(f"{value},{value}\n" for value in values))

    @property
    def ledger(self) -> Path:
        return self.folder / "out" / "_syncblocks_ledger"

    def run(self, **options: Any) -> int | None:
        result = run_pipeline(self.document, **options)
        assert result.exit_code == 0
        return result.streams["t"].rows


@pytest.mark.one_of("connector")
@pytest.mark.parametrize("connector", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("settings", [MERGE, APPEND], ids=["merge", "append"])
def test_nothing_is_added_to_files_whose_ledger_is_lost(
    tmp_path: Path, connector: str, settings: dict[str, Any]
) -> None:
    bench = Bench(tmp_path, connector, **settings)
    bench.run()
    bench.ledger.rename(tmp_path / "copy")
    bench.write(1, 2, 3)
    for _ in range(2):  # the first one leaves no row behind
        result = run_pipeline(bench.document)
        assert re.search(r"table 't' has files that no ledger names \(.*out/t.*move them away", str(result.error))
    shutil.copytree(tmp_path / "copy", bench.ledger, dirs_exist_ok=True)
    assert bench.run() == 1


def test_files_that_were_moved_away_are_written_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "parquet", **APPEND)
    bench.run()
    (tmp_path / "out").rename(tmp_path / "away")
    assert bench.run() == 2


def test_a_full_refresh_writes_files_anew_whose_ledger_is_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "parquet", **MERGE)
    bench.run()
    shutil.rmtree(bench.ledger)
    assert bench.run(full_refresh=True) == 2
    assert bench.run() == 0


@pytest.mark.parametrize("settings", [MERGE, APPEND, FULL], ids=["merge", "append", "full_table"])
def test_files_of_another_program_are_not_said_to_be_adopted(tmp_path: Path, settings: dict[str, Any]) -> None:
    bench = Bench(tmp_path, "csv", **settings)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "t.csv").write_text("id,n\n7,7\n")
    with pytest.raises(ConfigError, match="another `destination_table`") as caught:
        bench.run()
    assert "adopt" not in str(caught.value)
    assert (tmp_path / "out" / "t.csv").read_text() == "id,n\n7,7\n"


@pytest.mark.one_of("connector")
@pytest.mark.parametrize("content", [b"", b"PAR1junkPAR1", b"\x00\xff"])
@pytest.mark.parametrize("connector", ["csv", "jsonl", "parquet"])
def test_a_file_of_another_program_that_cannot_be_read_is_refused_or_replaced_like_any(
    tmp_path: Path, connector: str, content: bytes
) -> None:
    bench = Bench(tmp_path, connector, **FULL)
    stranger = tmp_path / "out" / f"t.{connector}"
    stranger.parent.mkdir()
    stranger.write_bytes(content)
    with pytest.raises(ConfigError, match="no pipeline of syncblocks has written it"):
        bench.run()
    assert stranger.read_bytes() == content
    bench.document["streams"][0]["write_disposition"] = "replace"
    assert bench.run() == 2
    assert stranger.read_bytes() != content


def test_a_merge_into_a_table_that_lacks_a_file_has_a_way_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "parquet", **MERGE)
    bench.document["destination"]["config"]["file_records"] = 1
    bench.run()
    gone = sorted((tmp_path / "out" / "t").iterdir())[0]
    gone.unlink()
    bench.write(1, 2, 3)
    result = run_pipeline(bench.document)
    assert (result.exit_code, str(result.streams["t"].error)) == (
        1,
        f"{gone}: the file is missing, with records of table 't': restore it, or write the table again with "
        "--full-refresh",
    )
    assert bench.run(full_refresh=True) == 3
