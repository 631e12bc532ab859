"""The second day of a file: its types are guesses, and the table that is there decides them."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.plan.plan import PlannedStream
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from tests.sync.run.test_columns_by_case import config, records

SYSTEMS = ("sqlite", "duckdb", "postgres", "mysql")

#: Column -> what stands in the file on three days; each is one step that a guess alone would fail.
CSV: Mapping[str, tuple[str, str, str]] = {
    "fraction_then_whole": ("10.5", "11", "12.0"),
    "whole_then_fraction": ("10", "11.5", "12"),
    "whole_then_point_zero": ("10", "11.0", "12"),
    "text_then_whole": ("abc", "007", "8"),
    "text_then_number": ("abc", "10.50", "1e3"),
    "text_then_date": ("abc", "2024-01-02", "2024-01-03T10:00:00"),
    "text_then_flag": ("abc", "TRUE", "false"),
    "code_then_number": ("007", "8", "9"),
    "plus_then_number": ("+1", "2", "03"),
    "date_then_moment": ("2024-01-01T10:00:00", "2024-01-02", "2024-01-03 11:00:00.5"),
    "date_then_naive": ("2024-01-01", "2024-01-02T10:00:00", "2024-01-03"),
    "empty_then_number": ("", "5", "6.5"),
    "empty_then_text": ("", "x", "7"),
    "number_then_empty": ("5", "", "6"),
    "number_then_exponent": ("1.5", "1e3", "2"),
    "decimal_then_whole": ("0.12345678901234567890123", "1", "2.5"),
    "double_then_long": ("1.5", "9007199254740992", "3"),
    "flag_then_empty": ("true", "", "false"),
}

#: What is written where it is not what the file says, read as Python's own types.
NUMBERS = {
    "fraction_then_whole": [10.5, 11.0, 12.0],
    "whole_then_fraction": [10.0, 11.5, 12.0],
    "whole_then_point_zero": [10, 11, 12],
    "number_then_empty": [5, None, 6],
    "number_then_exponent": [1.5, 1000.0, 2.0],
    "empty_then_number": [None, 5.0, 6.5],
    "double_then_long": [1.5, 9007199254740992.0, 3.0],
}

#: Column -> what a day's file has that the table's column does not hold.
REFUSED: Mapping[str, tuple[str, str]] = {
    "whole_then_text": ("1", "abc"),
    "whole_then_code": ("1", "007"),
    "whole_then_plus": ("1", "+2"),
    "whole_then_flag": ("1", "true"),
    "flag_then_whole": ("true", "1"),
    "fraction_then_text": ("1.5", "N/A"),
    "fraction_then_long": ("1.5", "9007199254740993"),
    "date_then_text": ("2024-01-01", "soon"),
    "date_then_zoned": ("2024-01-01", "2024-01-02T10:00:00Z"),
    "zoned_then_naive": ("2024-01-01T10:00:00Z", "2024-01-02T10:00:00"),
    "naive_then_zoned": ("2024-01-01T10:00:00", "2024-01-02T10:00:00Z"),
}

JSON: Mapping[str, tuple[Any, Any, Any]] = {
    "fraction_then_whole": (10.5, 11, 12.0),
    "whole_then_fraction": (10, 11.5, 12),
    "text_then_number": ("abc", 10, 11.5),
    "text_then_flag": ("abc", True, False),
    "text_then_list": ("abc", [1, 2], {"a": 1}),
    "number_then_its_text": (10, "11", "12.0"),
    "null_then_number": (None, 5, 6),
    "date_then_naive": ("2024-01-01", "2024-01-02T10:00:00", "2024-01-03"),
    "moment_then_date": ("2024-01-01T10:00:00", "2024-01-02", "2024-01-03T11:00:00"),
}

HOW: Mapping[str, Mapping[str, Any]] = {
    "merge": {"write_disposition": "merge", "key_properties": ["id"]},
    "append": {
        "write_disposition": "append",
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["id"],
    },
    "replace": {"write_disposition": "replace"},
}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


class Bench:
    """One file into one table, day by day."""

    def __init__(self, folder: Path, destination: Mapping[str, Any], how: str, kind: str = "csv") -> None:
        self.folder, self.destination, self.how, self.kind = folder, destination, how, kind
        self.more: dict[str, Any] = {}

    def run(self, rows: Sequence[Mapping[str, Any]]) -> RunResult:
        self.write(rows)
        return run_pipeline(self.folder / "days.yaml")

    def plan(self, rows: Sequence[Mapping[str, Any]]) -> PlannedStream:
        self.write(rows)
        pipeline = load_pipeline(self.folder / "days.yaml")
        with existing_store(pipeline) as store, opened(pipeline) as session:
            return make_plan(session, store).streams[0]

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = as_csv(rows) if self.kind == "csv" else "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / f"in.{self.kind}").write_text(text, encoding="utf-8")
        document = {
            "source": {"connector": self.kind, "config": {"path": f"in.{self.kind}"}},
            "destination": self.destination,
            "streams": [{"stream": "in", "destination_table": "t", **HOW[self.how], **self.more}],
        }
        (self.folder / "days.yaml").write_text(json.dumps(document), encoding="utf-8")

    def table(self) -> dict[int, dict[str, Any]]:
        return {int(record["id"]): record for record in records(self.destination, self.folder)}


@pytest.fixture(params=SYSTEMS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return config(request.param, request, tmp_path)


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
def test_each_day_of_a_csv_file(tmp_path: Path, destination: dict[str, Any], how: str) -> None:
    bench = Bench(tmp_path, destination, how)
    for day in range(3):
        result = bench.run([{"id": day, **{name: texts[day] for name, texts in CSV.items()}}])
        assert result.status == "success", result.streams[0].error
        found = bench.table()
        assert list(found) == ([day] if how == "replace" else list(range(day + 1)))
        for name, texts in CSV.items():
            value = found[day][name]
            if name in NUMBERS:
                assert value == NUMBERS[name][day], (name, day)
            elif name.startswith(("text", "code", "plus", "empty")):
                assert value in (texts[day], texts[day] or None), (name, day)
    for name, values in NUMBERS.items():
        held = [found[day][name] for day in found]
        assert held == [values[day] for day in found], name
        kinds = {type(value) for value in held if value is not None}
        assert len(kinds) == 1, (name, held)


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
def test_each_day_of_json_lines(tmp_path: Path, destination: dict[str, Any], how: str) -> None:
    bench = Bench(tmp_path, destination, how, "jsonl")
    for day in range(3):
        result = bench.run([{"id": day, **{name: values[day] for name, values in JSON.items()}}])
        assert result.status == "success", result.streams[0].error
    found = bench.table()[2]
    assert (found["fraction_then_whole"], found["whole_then_fraction"]) == (12.0, 12.0)
    assert (found["text_then_number"], found["text_then_flag"]) == ("11.5", "false")
    assert json.loads(found["text_then_list"]) == {"a": 1}
    assert found["number_then_its_text"] == 12
    assert str(found["null_then_number"]) == "6"
    if how != "replace":
        before = bench.table()[1]
        assert (before["text_then_number"], before["number_then_its_text"]) == ("10", 11)


@pytest.mark.one_of("destination")
def test_what_the_column_does_not_hold_is_rejected_with_its_line(tmp_path: Path, destination: dict[str, Any]) -> None:
    bench = Bench(tmp_path, destination, "merge")
    first = {name: texts[0] for name, texts in REFUSED.items()}
    assert bench.run([{"id": 0, **first}]).status == "success"
    before = bench.table()
    rows = [{"id": n, **first, name: texts[1]} for n, (name, texts) in enumerate(REFUSED.items(), 1)]
    result = bench.run(rows)
    error = str(result.streams[0].error)
    assert result.status == "failure"
    assert "in.csv:2: column 'whole_then_text'" in error
    assert "--full-refresh" in error
    assert bench.table() == before
    bench.more = {"on_rejected": "keep", "max_rejected": 100}
    result = bench.run([{"id": 99, **first}, *rows])
    assert result.status == "success", result.streams[0].error
    assert result.streams[0].records_rejected == len(REFUSED)
    assert set(bench.table()) == {0, 99}


def test_a_full_refresh_guesses_again(tmp_path: Path) -> None:
    destination = {"connector": "duckdb", "config": {"path": "out.db"}}
    bench = Bench(tmp_path, destination, "replace")
    assert bench.run([{"id": 1, "v": "abc"}]).status == "success"
    assert bench.run([{"id": 2, "v": "5"}]).status == "success"
    assert bench.table()[2]["v"] == "5"
    result = run_pipeline(tmp_path / "days.yaml", full_refresh=True)
    assert result.status == "success"
    assert bench.table()[2]["v"] == 5


LONG = 2**53 + 1

#: The integer in the table, and the numbers of the next file. A double keeps the first pair only.
FRACTIONS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "double": (2**53, ("0.5", "1e-7")),
    "long_in_table": (LONG, ("0.5", "7")),
    "long_in_file": (3, ("0.5", str(LONG))),
    "long_in_both": (LONG, ("0.5", str(LONG + 2))),
}


@pytest.mark.full
@pytest.mark.one_of("destination", "kind")
@pytest.mark.thinned(2)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("case", FRACTIONS)
def test_integers_that_get_fractions_become_doubles_or_decimals(
    tmp_path: Path, destination: dict[str, Any], kind: str, case: str
) -> None:
    bench = Bench(tmp_path, destination, "merge", kind)
    held, values = FRACTIONS[case]
    assert bench.run([{"id": 1, "v": held}]).status == "success"
    numbers = values if kind == "csv" else map(json.loads, values)
    becomes = " ".join(bench.plan([{"id": n, "v": value} for n, value in enumerate(numbers, 2)]).texts.changes).lower()
    result = run_pipeline(tmp_path / "days.yaml")
    found = {key: record["v"] for key, record in bench.table().items()}
    if case != "double" and destination["connector"] == "sqlite":  # without decimals
        line = 2 if kind == "csv" else 1
        assert (becomes, found) == ("", {1: held})
        for part in (f"in.{kind}:{line}: column 'v'", "`types: {v: string}`"):
            assert part in str(result.streams[0].error)
        return
    assert result.status == "success", result.streams[0].error
    assert {key: Decimal(str(value)) for key, value in found.items()} == {
        1: held,
        **{n: Decimal(value) for n, value in enumerate(values, 2)},
    }
    if case == "double":
        assert "real" in becomes or "double" in becomes
        assert {type(value) for value in found.values()} == {float}
    else:
        assert "decimal" in becomes or "numeric" in becomes


@pytest.mark.one_of
@pytest.mark.parametrize("value", ["NaN", "1e40", "0.12345678901234567890123"])
def test_a_fraction_for_which_there_is_no_decimal_is_rejected(tmp_path: Path, value: str) -> None:
    bench = Bench(tmp_path, {"connector": "duckdb", "config": {"path": "out.db"}}, "merge")
    assert bench.run([{"id": 1, "v": LONG}]).status == "success"
    planned = bench.plan([{"id": 2, "v": "0.5"}, {"id": 3, "v": value}])
    assert planned.verdict.refusal == ""
    result = run_pipeline(tmp_path / "days.yaml")
    assert result.status == "failure"
    for part in ("in.csv:2: column 'v'", "`types: {v: string}`"):
        assert part in str(result.streams[0].error)
    assert bench.table() == {1: {"id": 1, "v": LONG}}


@pytest.mark.parametrize(
    "more",
    [{"key_properties": ["v"]}, {"replication_method": "INCREMENTAL", "bookmark_properties": ["v"]}],
    ids=lambda more: next(iter(more)),
)
def test_integers_that_others_build_on_become_no_decimals(tmp_path: Path, more: dict[str, Any]) -> None:
    bench = Bench(tmp_path, {"connector": "duckdb", "config": {"path": "out.db"}}, "merge")
    bench.more = more
    assert bench.run([{"id": 1, "v": LONG}]).status == "success"
    result = bench.run([{"id": 2, "v": f"{LONG + 2}.5"}])
    assert result.status == "failure"
    assert "`types: {v: string}`" in str(result.streams[0].error)


@pytest.mark.one_of("destination")
def test_days_of_a_database_that_get_times_widen_the_table(tmp_path: Path, destination: dict[str, Any]) -> None:
    document = {
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": destination,
        "streams": [{"stream": "s", "destination_table": "t", **HOW["merge"]}],
    }
    (tmp_path / "days.yaml").write_text(json.dumps(document))
    days = (("DATE", "2024-01-01"), ("TIMESTAMP", "2024-01-02 10:00:00"), ("DATE", "2024-01-03"))
    for day, (kind, text) in enumerate(days):
        with closing(sqlite3.connect(tmp_path / "source.db")) as source:
            source.executescript(
                f"drop table if exists s; create table s (id integer primary key, v {kind});"
                f"insert into s values ({day}, '{text}')"
            )
        result = run_pipeline(tmp_path / "days.yaml")
        assert result.status == "success", result.streams[0].error
    found = [str(record["v"])[:19] for record in records(destination, tmp_path)]
    assert sorted(found) == ["2024-01-01 00:00:00", "2024-01-02 10:00:00", "2024-01-03 00:00:00"]


@pytest.mark.parametrize(
    "more",
    [
        {"on_schema_change": "freeze"},
        {"key_properties": ["v"]},
        {"replication_method": "INCREMENTAL", "bookmark_properties": ["v"]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_dates_that_others_build_on_get_no_times(tmp_path: Path, more: dict[str, Any]) -> None:
    bench = Bench(tmp_path, {"connector": "duckdb", "config": {"path": "out.db"}}, "merge")
    bench.more = more
    assert bench.run([{"id": 1, "v": "2024-01-01"}]).status == "success"
    result = bench.run([{"id": 2, "v": "2024-01-02 10:00:00"}])
    assert result.status == "failure"
    assert "`types: {v: string}`" in str(result.streams[0].error)


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_unlike_files_make_one_new_table(tmp_path: Path, destination: dict[str, Any], kind: str) -> None:
    files: dict[str, dict[str, Any]] = {
        "a": {"id": 1, "number": 1.5, "whole": 1, "text": 7, "day": "2024-01-01", "none": None, "said": 1},
        "b": {"id": 2, "number": 2, "whole": 2, "text": "abc", "day": "2024-01-02T10:00:00", "none": 5, "said": 2},
    }
    for name, record in files.items():
        (tmp_path / f"{name}.{kind}").write_text(as_csv([record]) if kind == "csv" else json.dumps(record) + "\n")
    document = {
        "source": {"connector": kind, "config": {"path": f"[ab].{kind}"}},
        "destination": destination,
        "streams": [
            {"stream": "*", "destination_table": "t", **HOW["merge"]},
            {"stream": "b", "types": {"said": "string"}},
        ],
    }
    (tmp_path / "days.yaml").write_text(json.dumps(document), encoding="utf-8")
    for _ in range(2):
        result = run_pipeline(tmp_path / "days.yaml")
        assert result.status == "success", [each.error for each in result.streams]
    found = {record["id"]: record for record in records(destination, tmp_path)}
    for name, values in {"number": (1.5, 2.0), "whole": (1, 2), "text": ("7", "abc"), "said": ("1", "2")}.items():
        assert (found[1][name], found[2][name]) == values
    assert [str(found[n]["day"])[:19] for n in (1, 2)] == ["2024-01-01 00:00:00", "2024-01-02 10:00:00"]
    assert (found[1]["none"], found[2]["none"]) == (None, 5)


@pytest.mark.one_of("destination")
def test_unlike_values_of_json_lines_are_read_as_the_tables_column(tmp_path: Path, destination: dict[str, Any]) -> None:
    bench = Bench(tmp_path, destination, "merge", "jsonl")
    assert bench.run([{"id": 1, "v": 5}]).status == "success"
    rows = [{"id": 2, "v": "abc"}, {"id": 3, "v": 6}, {"id": 4, "v": {"a": 1}}, {"id": 5, "v": "7"}]
    result = bench.run(rows)
    assert "in.jsonl:1: column 'v': '\"abc\"' is no int64; the table's column decides" in str(result.streams[0].error)
    bench.more = {"on_rejected": "keep"}
    result = bench.run(rows)
    assert (result.status, result.streams[0].records_rejected) == ("success", 2), result.streams[0].error
    assert {key: record["v"] for key, record in bench.table().items()} == {1: 5, 3: 6, 5: 7}


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_widen_makes_text_of_a_column_that_its_values_outgrow(
    tmp_path: Path, destination: dict[str, Any], kind: str
) -> None:
    bench = Bench(tmp_path, destination, "merge", kind)
    days = {"whole": (5, 10**20 - 1), "moment": ("2024-01-01T10:00:00", "2024-01-02T10:00:00Z")}
    if destination["connector"] == "mysql":  # which writes times in another form
        del days["moment"]
    assert bench.run([{"id": 1, **{name: values[0] for name, values in days.items()}}]).status == "success"
    second = [{"id": 2, **{name: values[1] for name, values in days.items()}}]
    error = str(bench.run(second).streams[0].error)
    assert "`types: {whole: string}` in this stream reads it as text, together with `on_schema_change: widen`" in error
    bench.more = {"on_schema_change": "widen"}
    result = bench.run(second)
    assert result.status == "success", result.streams[0].error
    found = bench.table()
    assert (found[1]["whole"], found[2]["whole"]) == ("5", "99999999999999999999")
    if "moment" in days:
        assert found[1]["moment"].startswith("2024-01-01T10:00:00")
        assert found[2]["moment"] == "2024-01-02T10:00:00Z"


def test_a_refusal_names_what_makes_the_column_text(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"connector": "duckdb", "config": {"path": "out.db"}}, "merge")
    assert bench.run([{"id": 1, "v": 5}]).status == "success"
    bench.more = {"types": {"v": "string"}}
    assert "say `on_schema_change: widen` to make the column text" in str(
        bench.run([{"id": 2, "v": "x"}]).streams[0].error
    )
    bench.more |= {"on_schema_change": "widen"}
    assert bench.run([{"id": 2, "v": "x"}]).status == "success"
    assert bench.table()[1]["v"] == "5"
