"""Checks of values: a record that fails one is a rejected record, whatever reads it and whatever writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.connectors.filters import condition_of, passes
from syncblocks.connectors.read_spec import ReadSpec
from syncblocks.connectors.rejected.limits import Rejections, TooManyRejected
from syncblocks.connectors.rejected.records import rejection
from syncblocks.connectors.stream import Stream
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.flow.checks import Unique
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import DIFFERS, EQUAL, StreamVerification, verify_streams
from tests.conftest import RunCLI

CHECKS = {"rating": ["PG", "R"], "amount": {">=": 0, "<": 100}}
#: id, rating, amount; the last four fail.
FILMS = [
    (1, "PG", 1.5),
    (2, None, None),
    (3, "R", 99.99),
    (4, "X", 1.0),
    (5, "PG", -0.01),
    (6, "R", 100.0),
    (7, "X", -1.0),
]


class Bench:
    """Films in a DuckDB file, copied to another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.to: dict[str, Any] = {"connector": "duckdb", "config": {"path": "out.db"}}
        self.rows: Callable[[str], list[tuple[Any, ...]]] = self._rows
        self.source("create table films (id int primary key, rating varchar, amount decimal(9,2))")
        self.source(f"insert into films values {', '.join(str(film).replace('None', 'null') for film in FILMS)}")

    def source(self, statement: str) -> None:
        with closing(duckdb.connect(self.folder / "source.db")) as database:
            database.execute(statement)

    def document(self, **stream: Any) -> dict[str, Any]:
        return {
            "pipeline": "films",
            "source": {"connector": "duckdb", "config": {"path": "source.db"}},
            "destination": self.to,
            "streams": [{"stream": "films", "checks": CHECKS, **stream}],
        }

    def run(self, *more: dict[str, Any], **stream: Any) -> RunResult:
        document = self.document(**stream)
        for each in more:
            document |= each
        return run_pipeline(load_pipeline(document, folder=self.folder))

    def verified(self, **stream: Any) -> StreamVerification:
        pipeline = load_pipeline(self.document(**stream), folder=self.folder)
        with opened(pipeline) as session, Store.open(session.pipeline.store_url) as store:
            (found,) = verify_streams(session, make_plan(session, store))
        return found

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            return database.execute(query).fetchall()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


IDS, REASONS = "select id from films order by id", "select record, reason from _syncblocks_rejected order by record"


@pytest.mark.one_of
@pytest.mark.parametrize("to", ["duckdb", "postgres"])
def test_a_record_that_fails_is_kept_beside_the_table(to: str, bench: Bench, request: pytest.FixtureRequest) -> None:
    if to == "postgres":
        url = request.getfixturevalue("postgres_url")
        bench.to = {"connector": "postgres", "config": {"url": url}}

        def asked(query: str) -> list[tuple[Any, ...]]:
            with psycopg.connect(url) as postgres:
                return postgres.execute(query.encode()).fetchall()

        bench.rows = asked
    result = bench.run(on_rejected="keep")
    assert result.status == "success", result.streams[0].error
    assert bench.rows(IDS) == [(1,), (2,), (3,)]
    found = {json.loads(record)["id"]: reason for record, reason in bench.rows(REASONS)}
    assert found == {
        4: "column 'rating': 'X' fails the check `rating in ('PG', 'R')`",
        5: "column 'amount': Decimal('-0.01') fails the check `amount >= 0.00`",
        6: "column 'amount': Decimal('100.00') fails the check `amount < 100.00`",
        7: "column 'rating': 'X' fails the check `rating in ('PG', 'R')`",
    }
    verified = bench.verified(on_rejected="keep")
    assert (verified.verdict, verified.source_records) == (EQUAL, 3), verified.notes
    assert "4 rejected record(s) of the source: not compared" in verified.notes


def test_verify_finds_what_differs_among_the_records_that_pass(bench: Bench) -> None:
    assert bench.run(on_rejected="keep").status == "success"
    bench.source("update films set amount = 7 where id = 1")
    assert bench.verified(on_rejected="keep").verdict == DIFFERS


def test_the_first_one_fails_the_stream_by_default(bench: Bench) -> None:
    result = bench.run()
    assert result.status == "failure"
    message = (
        "column 'rating': 'X' fails the check `rating in ('PG', 'R')` of the record with id 4; `on_rejected: keep`"
    )
    assert message in str(result.streams[0].error)
    assert "more than 3 rejected records (`max_rejected`)" in str(
        bench.run(on_rejected="keep", max_rejected=3).streams[0].error
    )
    assert bench.run(on_rejected="keep", max_rejected=4).status == "success"


def test_null_passes_unless_a_check_asks_for_a_value(bench: Bench) -> None:
    assert bench.run(checks={"rating": {"is_null": False}}, on_rejected="keep").status == "success"
    assert bench.rows(IDS) == [(n,) for n in (1, 3, 4, 5, 6, 7)]
    assert bench.run(checks={"amount": {"is_null": True}}, on_rejected="keep").status == "success"
    assert bench.rows(IDS) == [(2,)]


def test_a_check_counts_the_characters_of_a_text_and_the_bytes_of_bytes(bench: Bench) -> None:
    bench.source("create table names (id int primary key, name varchar, code blob)")
    bench.source(
        "insert into names values (1, 'Zoë', 'ab'), (2, 'Zoë!', 'ab'), (3, '', 'ab'), (4, 'Zo', 'abc'), (5, null, null)"
    )
    checks = {"name": {"min_length": 1, "max_length": 3}, "code": {"max_length": 2}}
    result = bench.run(stream="names", checks=checks, on_rejected="keep")
    assert result.status == "success", result.streams[0].error
    assert bench.rows("select id from names order by id") == [(1,), (5,)]
    found = {json.loads(record)["id"]: reason for record, reason in bench.rows(REASONS)}
    assert found[2] == "column 'name': 'Zoë!' fails the check `name max_length 3`"
    assert set(found) == {2, 3, 4}


def test_the_old_row_of_a_rejected_record_stays(bench: Bench) -> None:
    said = {"write_disposition": "merge", "on_rejected": "keep"}
    assert bench.run(**said).status == "success"
    bench.source("update films set amount = -5, rating = 'R' where id = 1")
    assert bench.run(**said).status == "success"
    assert bench.rows("select amount::double from films where id = 1") == [(1.5,)]


def test_checks_see_what_a_transformer_makes(bench: Bench) -> None:
    (bench.folder / "double.py").write_text(
        "@transformer\ndef double(df):\n    df['twice'] = df['amount'] * 2\n    return df\n"
    )
    blocks = {"transformers": [{"file": "double.py"}]}
    result = bench.run(blocks, checks={"twice": {"<=": 3}}, on_rejected="keep")
    assert result.status == "success", result.streams[0].error
    assert bench.rows(IDS) == [(1,), (2,), (4,), (5,), (7,)]
    wrong = bench.run(blocks, checks={"twise": 1})
    assert "checks: column 'twise' does not arrive; what does is id, rating, amount, twice" in str(
        wrong.streams[0].error
    )
    assert "checks: column 'twice' is" in str(bench.run(blocks, checks={"twice": "many"}).streams[0].error)


def test_checks_speak_of_names_before_the_destinations_and_of_types_that_the_file_says(bench: Bench) -> None:
    bench.to["naming"] = "lower"
    renamed = {"transformers": [{"rename": {"rating": "Rated", "amount": "Sum"}}]}
    checks = {"Rated": ["PG", "R"], "Sum": ["1.50", "99.99"]}
    said: dict[str, Any] = {"checks": checks, "on_rejected": "keep", "types": {"amount": "string"}}
    result = bench.run(renamed, **said)
    assert result.status == "success", result.streams[0].error
    assert bench.rows(IDS) == [(1,), (2,), (3,)]
    pipeline = load_pipeline(bench.document(**said) | renamed, folder=bench.folder)
    with opened(pipeline) as session, Store.open(session.pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert (found.verdict, found.source_records) == (EQUAL, 3), found.notes


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"checks": {"ratign": "PG"}}, "'ratign' is no column of the stream as it arrives; did you mean 'rating'"),
        ({"checks": {"amount": "many"}}, "'many' does not fit: write a number"),
        ({"checks": {"amount": {"=>": 1}}}, "no operator '=>'"),
        ({"checks": {"amount": {"max_length": 3}}}, "3 does not fit: only texts and bytes have a length"),
        ({"checks": {"rating": {"max_length": "3"}}}, "max_length is a number of characters"),
        ({"where": {"rating": {"max_length": 3}}}, "'max_length' is for `checks`"),
        (
            {"checks": None, "warn_checks": {"ratng": "x"}},
            "no column of the stream as it arrives; did you mean 'rating'",
        ),
        ({"checks": {"_of": "x"}, "add_columns": {"_of": "x"}}, "'_of' is one of `add_columns`"),
        ({"columns": {"mask": {"rating": None}}}, "'rating' is masked, and `checks` names it"),
    ],
)
def test_a_check_that_cannot_be_meant_is_refused(stream: dict[str, Any], message: str, bench: Bench) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.run(**stream)


@pytest.mark.full
def test_records_that_fail_a_warning_are_written_and_counted(bench: Bench, run_cli: RunCLI) -> None:
    said = {"rating": ["PG", "R"], "amount": {"<": 100, ">=": 0}}
    result = bench.run(checks={"id": {"<": 100}}, warn_checks=said)
    assert result.status == "success"
    assert len(bench.rows("select * from films")) == len(FILMS)
    assert bench.verified(checks=None, warn_checks=said).verdict == EQUAL
    (bench.folder / "p.yaml").write_text(json.dumps(bench.document(checks=None, warn_checks=said)))
    shown = run_cli(["runs", "show", "p.yaml", "1"], bench.folder).stdout
    assert "films: 2 records fail a check of `warn_checks`, and are written: column 'rating': 'X' fails" in shown
    assert "films: 1 record fails a check of `warn_checks`, and is written: column 'amount': Decimal('100.00')" in shown
    planned = run_cli(["plan", "p.yaml"], bench.folder).stdout
    assert "films: records that fail rating in " in planned
    assert "and amount < 100.00 and amount >= 0.00 are written" in planned


def test_a_masked_column_is_not_checked_under_another_name_either(bench: Bench) -> None:
    renamed = {"transformers": [{"rename": {"rating": "rated"}}]}
    with pytest.raises(ConfigError, match="'rated' is masked"):
        bench.run(renamed, checks={"rated": "PG"}, columns={"mask": {"rating": None}})


def test_plan_shows_checks_and_raw_wires_are_left_out(bench: Bench, postgres_url: str, run_cli: RunCLI) -> None:
    with psycopg.connect(postgres_url) as postgres:
        postgres.execute("create table films (id int primary key, rating text, amount numeric(9,2))")
        postgres.execute("create schema copy")
    checks = {**CHECKS, "unique": ["rating", "amount"]}
    document = bench.document(stream="public.films", destination_table="copy.films", checks=checks)
    document |= {name: {"connector": "postgres", "config": {"url": postgres_url}} for name in ("source", "destination")}
    (bench.folder / "films.yaml").write_text(json.dumps(document))
    shown = run_cli(["plan", "films.yaml"], bench.folder).stdout
    assert "checks rating in ('PG', 'R') and amount >= 0.00 and amount < 100.00 and unique rating, amount" in shown
    assert "pgcopy" not in shown
    del document["streams"][0]["checks"]
    (bench.folder / "films.yaml").write_text(json.dumps(document))
    assert "pgcopy" in run_cli(["plan", "films.yaml"], bench.folder).stdout


# -- matches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["^[PR]G?$", "P|R", "(?i)pg|r"])
def test_a_text_without_a_match_is_rejected_and_null_passes(bench: Bench, pattern: str) -> None:
    bench.run(checks={"rating": {"matches": pattern}}, on_rejected="keep").raise_for_status()
    assert bench.rows(IDS) == [(1,), (2,), (3,), (5,), (6,)]
    reasons = {reason for _, reason in bench.rows(REASONS)}
    assert reasons == {f"column 'rating': 'X' fails the check `rating matches {pattern}`"}


@pytest.mark.parametrize(
    ("checks", "what"),
    [
        ({"rating": {"matches": "(a"}}, "RE2.*missing \\)"),
        ({"rating": {"matches": "a(?=b)"}}, "RE2.*\\(\\?="),
        ({"amount": {"matches": "1"}}, "types: {amount: string}"),
        ({"rating": {"matches": 5}}, "in quotes"),
        ({"unique": []}, "list of columns"),
        ({"unique": ["id", "id"]}, "twice"),
        ({"unique": ["idd"]}, "did you mean 'id'"),
    ],
)
def test_a_check_that_cannot_be_made_is_refused(bench: Bench, checks: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        bench.run(checks=checks)
    assert not (bench.folder / "out.db").exists()


def test_where_and_warn_checks_have_no_such_check(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="is for `checks`"):
        bench.run(where={"rating": {"matches": "P"}})
    with pytest.raises(ConfigError, match="'unique' is no column"):
        bench.run(warn_checks={"unique": ["id"]})


PATTERNS = ("a", "^a", "b$", "^[ab]+$", "a.b", "(ab)+", "a{2,3}", "\\d", "\\.", "é", "^$", "[^a]", "a|^b")
TEXTS = st.one_of(st.none(), st.text("ab1.é\n", max_size=6))


@pytest.mark.full
@given(pattern=st.sampled_from(PATTERNS), texts=st.lists(TEXTS, max_size=20))
def test_matches_finds_what_re_finds(pattern: str, texts: list[str | None]) -> None:
    check = condition_of(pa.field("a", pa.string()), "matches", [pattern])
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], ["a"])
    # Python's `$` also matches before a final line break, RE2's does not.
    python = re.compile(pattern.replace("$", "\\Z"))
    assert passes(batch, [check]).to_pylist() == [each is None or bool(python.search(each)) for each in texts]


# -- unique -------------------------------------------------------------------------------------------------------


def test_a_record_whose_values_occurred_earlier_in_the_commit_is_rejected(bench: Bench) -> None:
    bench.run(checks={"unique": ["rating"], "amount": {"<": 50}}, on_rejected="keep").raise_for_status()
    # Record 3 fails the other check, so 6 would be the first `R`; it fails that check, too.
    assert bench.rows(IDS) == [(1,), (2,), (4,)]
    reasons = [reason for record, reason in bench.rows(REASONS) if json.loads(record)["id"] == 5]
    assert reasons == ["column 'rating': 'PG' occurred earlier in the same commit (`unique`)"]
    bench.run(checks={"unique": ["rating"]}, on_rejected="keep").raise_for_status()
    assert bench.rows(IDS) == [(1,), (2,), (3,), (4,)]


def test_a_repeated_record_fails_a_stream_that_keeps_no_rejected_records(bench: Bench) -> None:
    result = bench.run(checks={"unique": ["rating"]})
    assert "column 'rating': 'PG' occurred earlier" in str(result.streams["films"].error)
    assert not bench.rows("select * from duckdb_tables() where table_name = 'films'")


@pytest.mark.one_of
@pytest.mark.parametrize(("checkpoint_records", "written"), [(4, 8), (100, 4)])
def test_unique_looks_into_one_commit_and_not_into_the_table(
    bench: Bench, checkpoint_records: int, written: int
) -> None:
    records = [{"id": number, "part": number % 4} for number in range(1, 9)]
    tables = {"many": {"columns": {"id": "int64", "part": "int64"}, "records": records}}
    config = {"tables": tables, "batch_size": 2, "checkpoint_records": checkpoint_records}
    entry = {"stream": "many", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    entry |= {"key_properties": ["id"], "checks": {"unique": ["part"]}, "on_rejected": "keep"}
    document = bench.document() | {"source": {"connector": "memory", "config": config}, "streams": [entry]}
    run_pipeline(load_pipeline(document, folder=bench.folder)).raise_for_status()
    assert bench.rows("select count(*) from many") == [(written,)]
    records.append({"id": 9, "part": 1})  # the table has this part already
    run_pipeline(load_pipeline(document, folder=bench.folder)).raise_for_status()
    assert bench.rows("select id from many where id = 9") == [(9,)]
    document["streams"] = [{**entry, "write_disposition": "append"}]
    with pytest.raises(ConfigError, match="commits at each checkpoint"):
        run_pipeline(load_pipeline(document, folder=bench.folder))


def test_a_column_called_unique_has_its_own_checks(bench: Bench) -> None:
    bench.source("create table odd as select 1 as id, 'a' as \"unique\" union all select 2, 'b'")
    document = bench.document() | {
        "streams": [{"stream": "odd", "checks": {"unique": {"in": ["a"]}}, "on_rejected": "keep"}]
    }
    run_pipeline(load_pipeline(document, folder=bench.folder)).raise_for_status()
    assert bench.rows("select id from odd") == [(1,)]


RECORD = st.tuples(
    st.one_of(st.none(), st.text("ab\0é", max_size=3)),
    st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("inf")])),
    st.one_of(st.none(), st.sampled_from([datetime.fromisoformat(each) for each in ("0001-01-01", "9999-12-31")])),
)
COLUMNS = {"a": pa.string(), "b": pa.float64(), "c": pa.timestamp("us")}


@pytest.mark.full
@given(commits=st.lists(st.lists(st.lists(RECORD, max_size=12), max_size=4), max_size=3), count=st.integers(1, 3))
def test_unique_rejects_what_a_set_has_seen(commits: list[list[list[tuple[Any, ...]]]], count: int) -> None:
    stream = Stream(name="s", schema=pa.schema(COLUMNS), read=ReadSpec(max_rejected=1000))
    unique = Unique(list(COLUMNS)[:count])
    for batches in commits:
        unique.begin_commit()
        seen = set[tuple[Any, ...]]()
        for records in batches:
            columns = [
                pa.array([record[place] for record in records], kind) for place, kind in enumerate(COLUMNS.values())
            ]
            good, rejected = unique.checked(pa.RecordBatch.from_arrays(columns, list(COLUMNS)), stream)
            expected = []
            for record in records:
                if None in record[:count]:
                    expected.append(record)
                elif record[:count] not in seen:
                    seen.add(record[:count])
                    expected.append(record)
            assert list(zip(*(column.to_pylist() for column in good.columns), strict=True)) == expected
            assert len(rejected) == len(records) - len(expected)


# -- max_rejected as a share --------------------------------------------------------------------------------------

ENDS: dict[str, dict[str, Any]] = {
    "duckdb": {"connector": "duckdb", "config": {"path": "out.db"}},
    "csv": {"connector": "csv", "config": {"path": "out"}},
    "memory": {"connector": "memory", "config": {"database": "shares"}},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("bad", "good", "fails"), [(5, 95, False), (6, 94, True), (50, 49, False), (0, 0, False)])
def test_a_share_of_rejected_records_is_judged_from_100_records_of_a_commit_on(
    bench: Bench, end: str, bad: int, good: int, fails: bool
) -> None:
    records = [{"id": number, "part": number < bad} for number in range(bad + good)]
    tables = {"many": {"columns": {"id": "int64", "part": "bool"}, "records": records}}
    entry = {"stream": "many", "checks": {"part": False}, "on_rejected": "keep", "max_rejected": "5%"}
    document = bench.document() | {
        "source": {"connector": "memory", "config": {"tables": tables, "batch_size": 7}},
        "destination": ENDS[end],
        "streams": [entry],
    }
    result = run_pipeline(load_pipeline(document, folder=bench.folder))
    found = result.streams["many"]
    if fails:
        assert (found.status, bool(found.records)) == ("failure", False)
        assert "6 of 100 records of a commit are rejected, more than 5% (`max_rejected`)" in str(found.error)
    else:
        assert (found.status, found.records, found.records_rejected or 0) == ("success", good, bad)


@pytest.mark.parametrize("given", ["101%", "-1%", "5 percent", 1_000_001, -1, True, "5"])
def test_a_limit_of_rejected_records_is_a_number_or_a_share(bench: Bench, given: Any) -> None:
    with pytest.raises(ConfigError, match="a share of a commit's records such as 5%"):
        bench.run(on_rejected="keep", max_rejected=given)


@given(
    percent=st.sampled_from([0.0, 0.1, 0.57, 1.1, 5.0, 33.3, 50.0, 100.0]),
    commits=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 60)), max_size=4),
)
def test_a_share_is_judged_exactly_and_for_each_commit(percent: float, commits: list[tuple[int, int]]) -> None:
    kept = Rejections(1_000_000, percent)
    for good, bad in commits:
        kept.add([rejection({"id": 1}, "bad")] * bad)
        total = good + bad
        if total >= 100 and Decimal(bad) / Decimal(total) > Decimal(str(percent)) / 100:
            with pytest.raises(TooManyRejected, match=rf"{bad} of {total:,} records"):
                kept.judge(good)
            return
        kept.judge(good)
        assert kept.written() == bad
