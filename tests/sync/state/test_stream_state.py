"""`state rewind`: a bookmark goes back, never ahead, in the ledger first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from syncblocks import PipelineFailed, load_pipeline, run_pipeline
from syncblocks.sync.cli import invoke
from syncblocks.sync.store import Store
from tests.sync.cli.cli_pipelines import rows, write_shop

RunHere = Callable[[list[str], Path], "Done"]
BOOKMARK = "select bookmark from _syncblocks_ledger where stream = 'orders'"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_shop(tmp_path)
    assert run_pipeline(tmp_path / "shop.yaml").status == "success"
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> RunHere:
    """In this process: starting one a call would take most of the time."""

    def run(args: list[str], _: Path) -> Done:
        code = invoke(args)
        return Done(code, *capfd.readouterr())

    return run


def bookmark(folder: Path) -> object:
    return json.loads(rows(folder, BOOKMARK)[0][0])["updated_at"]


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--to", "2024-01-02 11:30:00"], "2024-01-02T11:30:00"),
        (["--to", "updated_at=2024-01-02T11:30:00"], "2024-01-02T11:30:00"),
        (["--by", "1d2h"], "2024-01-02T07:15:00"),
        (["--by", "90s"], "2024-01-03T09:13:30"),
    ],
)
def test_a_bookmark_goes_back_to_a_value_or_by_an_amount(
    run_cli: RunHere, shop: Path, args: list[str], expected: str
) -> None:
    done = run_cli(["state", "rewind", "shop.yaml", "orders", *args], shop)
    assert done.returncode == 0, done.stderr
    assert f"rewound to updated_at={expected}" in done.stdout
    # Without the hashes of the records that stood at the old one.
    assert json.loads(rows(shop, BOOKMARK)[0][0]) == {"updated_at": expected}
    assert run_pipeline(shop / "shop.yaml", streams=["orders"]).status == "success"
    assert bookmark(shop) == "2024-01-03T09:15:00"


def test_a_bookmark_goes_back_to_where_a_run_has_left_it(run_cli: RunHere, shop: Path) -> None:
    path = shop / "data" / "orders.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1].replace("2024-01-03T09:15:00", "2024-02-01T00:00:00")]) + "\n")
    text = path.read_text()
    assert "2024-02-01" in text, text
    assert run_pipeline(shop / "shop.yaml").status == "success"
    assert bookmark(shop) == "2024-02-01T00:00:00"
    assert run_cli(["state", "rewind", "orders", "--run", "1"], shop).returncode == 0
    assert json.loads(rows(shop, BOOKMARK)[0][0]) == {"updated_at": "2024-01-03T09:15:00"}
    with Store.open(load_pipeline(shop / "shop.yaml").store_url) as store:
        copies = {state.stream: state.bookmark for state in store.states("shop")}
    assert copies["orders"] == {"updated_at": "2024-01-03T09:15:00"}


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["orders", "--to", "2030-01-01"], "past the current bookmark"),
        (["orders", "--to", "soon"], "2024-01-31T23:59:00"),
        (["orders", "--by", "5"], "1d, 12h"),
        (["orders", "--by", "-1d"], "1d, 12h"),
        (["orders", "--by", "9000000d"], "state reset"),
        (["orders", "--run", "7"], "no run 7"),
        (["orders"], "one of --to, --by, --run and --files"),
        (["orders", "--by", "1d", "--run", "1"], "one of --to, --by, --run and --files"),
        (["customers", "--by", "1d"], "FULL_TABLE"),
        (["customers", "--run", "1"], "FULL_TABLE"),
        (["order", "--run", "1"], "did you mean 'orders'?"),
    ],
)
def test_what_is_no_way_back_is_refused(run_cli: RunHere, shop: Path, args: list[str], hint: str) -> None:
    done = run_cli(["state", "rewind", *args], shop)
    assert done.returncode == 2
    assert hint in done.stderr
    assert bookmark(shop) == "2024-01-03T09:15:00"


def test_the_ledger_counts_and_not_the_copy(run_cli: RunHere, shop: Path) -> None:
    with duckdb.connect(str(shop / "warehouse.duckdb")) as connection:
        connection.execute(
            "update _syncblocks_ledger set bookmark = $1 where stream = 'orders'",
            ['{"updated_at": "2024-01-02T00:00:00"}'],
        )
    done = run_cli(["state", "rewind", "orders", "--to", "2024-01-02T11:00:00"], shop)
    assert done.returncode == 2  # earlier than the copy says, later than the ledger
    assert run_cli(["state", "rewind", "orders", "--to", "2024-01-01T11:00:00"], shop).returncode == 0


def test_a_ledger_that_names_a_place_with_its_secret_is_known_and_names_it_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER", "hunter2-data")
    file = write_shop(tmp_path)
    (tmp_path / "data").rename(tmp_path / "hunter2-data")
    file.write_text(file.read_text().replace("path: data", "path: \"{{ env_var('FOLDER') }}\""))
    assert run_pipeline(file).status == "success"
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        (masked,) = connection.execute("select distinct source from _syncblocks_ledger").fetchall()
        assert "***" in masked[0]
        before = masked[0].partition(" #")[0].replace("***", "hunter2-data")
        connection.execute("update _syncblocks_ledger set source = ?", [before])
    assert run_pipeline(file).status == "success"
    assert rows(tmp_path, "select distinct source from _syncblocks_ledger") == [masked]
    text = file.read_text()
    file.write_text(text.replace("{{ env_var('FOLDER') }}", "hunter2-data"))
    assert run_pipeline(file).status == "success", "the same place, which is no secret any more"
    file.write_text(text)
    (tmp_path / "hunter2-data").rename(tmp_path / "other-place")
    monkeypatch.setenv("FOLDER", "other-place")
    with pytest.raises(PipelineFailed, match="was last written from another source"):
        run_pipeline(file).raise_for_status()


def test_numbers_that_are_read_as_texts_stand_as_numbers(tmp_path: Path, postgres_url: str, run_cli: RunHere) -> None:
    from tests.connectors.postgres.postgres_pair import script

    script(
        postgres_url, "create table a (id int primary key, n numeric not null); insert into a values (1, 10), (2, 9)"
    )
    document = {
        "source": {"connector": "postgres", "config": {"url": postgres_url}},
        "destination": {"connector": "duckdb", "config": {"path": "d.duckdb"}},
        "streams": [{"stream": "public.a", "replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}],
    }
    file = tmp_path / "p.yaml"
    file.write_text(json.dumps(document))
    assert run_pipeline(file).status == "success"
    assert run_cli(["state", "rewind", str(file), "public.a", "--to", "9.5"], tmp_path).returncode == 0
    ahead = run_cli(["state", "rewind", str(file), "public.a", "--to", "10"], tmp_path)
    assert (ahead.returncode, "past the current bookmark" in ahead.stderr) == (2, True)
    for text in ("NaN", "ten"):
        refused = run_cli(["state", "set", str(file), "public.a", f"n={text}"], tmp_path)
        assert (refused.returncode, "as a number" in refused.stderr) == (2, True)
