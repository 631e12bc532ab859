"""A Singer target as a destination: what it is told, what counts as kept, and how its failures end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
)
from syncblocks.connectors.singer.target import SingerDestination
from syncblocks.connectors.stream import Checkpoint, Commit, Event, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.connectors.singer.singer_targets import make_target

PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
KEY = LedgerKey(pipeline="p", stream="people", destination_table="people")


def people(*ids: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": f"n{number}"} for number in ids], schema=PEOPLE)


def destination(folder: Path, manner: str = "", **settings: Any) -> SingerDestination:
    config = {"manner": manner, "out": str(folder / "out.jsonl"), "after": 2, "password": "correct horse"}
    return SingerDestination({"executable": str(make_target(folder)), "config": config, **settings}, folder)


def load_of(disposition: WriteDisposition = WriteDisposition.APPEND, table: str = "people") -> Load:
    stream = Stream(name="people", schema=PEOPLE, key_properties=("id",))
    key = LedgerKey(pipeline="p", stream="people", destination_table=table)
    return Load(key=key, stream=stream, write=WriteSpec(disposition=disposition), token="t", run="r:1")


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def wait_for(is_there: Callable[[], bool]) -> None:
    """Wait until another process has done something that it does not tell of."""
    deadline = time.monotonic() + 20
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


EVENTS: Sequence[Event] = (
    people(1, 2),
    Checkpoint(bookmark={"id": 2}),
    people(3),
    Checkpoint(bookmark={"id": 3}, is_final=True),
)


def run(target: SingerDestination, events: Sequence[Event] = EVENTS, load: Load | None = None) -> list[Commit]:
    return list(target.load(load or load_of(), iter(events)))


def test_a_target_reads_schema_records_and_states_in_order(tmp_path: Path) -> None:
    run(destination(tmp_path))
    messages = written(tmp_path)
    assert [message["type"] for message in messages] == ["SCHEMA", "RECORD", "RECORD", "STATE", "RECORD", "STATE"]
    assert messages[0]["key_properties"] == ["id"]
    assert messages[0]["schema"]["properties"] == {
        "id": {"type": "integer"},
        "name": {"type": ["string", "null"]},
    }
    assert [message["record"] for message in messages if message["type"] == "RECORD"] == people(1, 2, 3).to_pylist()
    assert messages[-1]["value"]["bookmarks"]["people"]["id"] == 3


@pytest.mark.parametrize("manner", ["", "last", "wraps", "talks"])
def test_what_the_target_echoes_is_what_counts_as_committed(tmp_path: Path, manner: str) -> None:
    commits = run(destination(tmp_path, manner))
    assert commits[-1].checkpoint == Checkpoint(bookmark={"id": 3}, is_final=True)
    assert sum(commit.records for commit in commits) == 3
    assert all(commit.is_confirmed for commit in commits)


def test_a_target_that_echoes_nothing_confirms_nothing(tmp_path: Path) -> None:
    (commit,) = run(destination(tmp_path, "silent"))
    assert (commit.is_confirmed, commit.records) == (False, 3)


def test_each_state_counts_once_it_comes_back(tmp_path: Path) -> None:
    """The records after a checkpoint wait until its state was seen: no commit runs ahead of an echo."""
    target, gate = destination(tmp_path), threading.Event()
    seen: list[Commit] = []

    def events() -> Iterator[Event]:
        yield people(1)
        yield Checkpoint(bookmark={"id": 1})
        for number in range(2, 2000):  # until the echo has come round
            yield people(number)
            if seen:
                break
            gate.wait(0.005)
        yield Checkpoint(bookmark={"id": 9}, is_final=True)

    for commit in target.load(load_of(), events()):
        seen.append(commit)
    assert seen[0].checkpoint == Checkpoint(bookmark={"id": 1})
    assert seen[0].records == 1
    assert seen[-1].checkpoint.is_final


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("manner", "kind", "says"),
    [
        ("dies", RetriableError, "SIGKILL"),
        ("fails", RetriableError, "status 3"),
        ("stops", RetriableError, "before it had read all records"),
        ("broken", FatalConnectorError, "disk full"),
    ],
)
def test_a_target_that_fails_ends_the_load_with_its_last_words(
    tmp_path: Path, manner: str, kind: type[ConnectorError], says: str
) -> None:
    target = destination(tmp_path, manner)
    many = [people(*range(start, start + 1000)) for start in range(0, 200_000, 1000)]
    with pytest.raises(kind, match=says) as caught:
        run(target, [*many, Checkpoint(is_final=True)])
    assert "target-of-tests" in str(caught.value)
    assert "correct horse" not in str(caught.value)


@pytest.mark.parametrize("password", ["recent call last", "Traceback"])
def test_a_crash_with_status_0_is_recognized_whatever_the_log_masks(tmp_path: Path, password: str) -> None:
    config = {"manner": "broken", "out": str(tmp_path / "out.jsonl"), "password": password}
    with pytest.raises(FatalConnectorError, match="disk full"):
        run(destination(tmp_path, config=config))


def test_a_target_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(FatalConnectorError, match="hang_timeout_s"):
        run(destination(tmp_path, "hangs", hang_timeout_s=0.5))


def test_an_interrupt_ends_the_target(tmp_path: Path) -> None:
    target, reached = destination(tmp_path, "hangs"), threading.Event()

    def events() -> Iterator[Event]:
        yield people(1, 2, 3)
        reached.set()
        while True:
            yield people(*range(1000))

    def interrupt() -> None:
        reached.wait(20)
        target.interrupt("people")

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted):
        list(target.load(load_of(), events()))
    thread.join()


def test_an_error_of_the_source_ends_the_target_without_the_end_of_its_input(tmp_path: Path) -> None:
    target = destination(tmp_path, "last")

    def events() -> Iterator[Event]:
        yield people(1)
        wait_for(lambda: (tmp_path / "out.jsonl").exists() and len(written(tmp_path)) == 2)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        list(target.load(load_of(), events()))
    assert not (tmp_path / "out.jsonl.ended").exists(), "at the end of its input it would keep a part"


def test_the_config_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    run(destination(tmp_path))
    seen = json.loads((tmp_path / "out.jsonl.config").read_text())
    assert seen["mode"] == 0o600
    assert not Path(seen["config"]).exists()


def test_a_replace_ends_with_a_new_version(tmp_path: Path) -> None:
    run(destination(tmp_path), [people(1), Checkpoint(is_final=True)], load_of(WriteDisposition.REPLACE))
    schema, record, activate, state = written(tmp_path)
    assert activate == {"type": "ACTIVATE_VERSION", "stream": "people", "version": record["version"]}
    assert (schema["type"], state["type"]) == ("SCHEMA", "STATE")


def test_a_schema_that_changes_is_declared_before_its_records(tmp_path: Path) -> None:
    wider = PEOPLE.append(pa.field("age", pa.int32()))
    batch = pa.RecordBatch.from_pylist([{"id": 2, "name": None, "age": 3}], schema=wider)
    changed = Stream(name="people", schema=wider, key_properties=("id",))
    run(destination(tmp_path), [people(1), changed, batch, Checkpoint(is_final=True)])
    messages = written(tmp_path)
    assert [message["type"] for message in messages] == ["SCHEMA", "RECORD", "SCHEMA", "RECORD", "STATE"]
    assert messages[3]["record"] == {"id": 2, "name": None, "age": 3}


def test_a_schema_in_the_tables_name_reaches_the_target_as_singer_writes_it(tmp_path: Path) -> None:
    run(destination(tmp_path), load=load_of(table="crm.people"))
    assert {message["stream"] for message in written(tmp_path) if "stream" in message} == {"crm-people"}


def test_a_target_that_checks_with_floats_takes_decimals(tmp_path: Path) -> None:
    """As old targets do: to them 0.07 is no multiple of 0.01."""
    import jsonschema

    kinds = {"money": pa.decimal128(12, 2), "multipleOf": pa.decimal128(12, 2), "many": pa.list_(pa.decimal128(12, 2))}
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), *kinds.items()])
    value = Decimal("0.07")
    batch = pa.RecordBatch.from_pylist([{"id": 1, "money": value, "multipleOf": value, "many": [value]}], schema=schema)
    stream = Stream(name="people", schema=schema, key_properties=("id",))
    load = Load(key=KEY, stream=stream, write=WriteSpec(disposition=WriteDisposition.APPEND), token="t", run="r:1")
    run(destination(tmp_path), [batch, Checkpoint(is_final=True)], load)
    declared, record, _ = written(tmp_path)
    assert set(declared["schema"]["properties"]) == {"id", *kinds}
    jsonschema.Draft4Validator(declared["schema"]).validate(record["record"])
    assert record["record"]["money"] == 0.07


def test_settings_must_name_one_target(tmp_path: Path) -> None:
    for config in ({}, {"executable": "a", "pip": "b"}, {"class": "a:B", "executable": "c"}, {"class": "no colon"}):
        with pytest.raises(ConnectorConfigError):
            SingerDestination(config, tmp_path)
    with pytest.raises(ConnectorConfigError, match="no program"):
        SingerDestination({"executable": "./nowhere"}, tmp_path).check()


def test_check_starts_the_target(tmp_path: Path) -> None:
    destination(tmp_path).check()


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"pip": "meltanolabs-target-csv==0.5.0"}, True),
        ({"pip": "meltanolabs-target-csv", "config": {"file_naming_scheme": "{timestamp}.csv"}}, False),
        ({"pip": "target-jsonl"}, False),
    ],
)
def test_a_target_that_begins_its_files_anew_says_so(tmp_path: Path, settings: dict[str, Any], *, warns: bool) -> None:
    target = SingerDestination(settings, tmp_path)
    assert ("file_naming_scheme" in target.forgets_runs()) is warns
    assert target.max_loads == 1
    assert SingerDestination({**settings, "max_loads": 3}, tmp_path).max_loads == 3
