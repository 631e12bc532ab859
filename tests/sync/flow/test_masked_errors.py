"""What masks show of a message: as much as its error says holds no value of a record."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.arrow.record_size import too_wide
from syncblocks.connectors.capabilities import capabilities_of
from syncblocks.connectors.errors import ConnectorError, FatalConnectorError
from syncblocks.connectors.files.csv_lines import CSVLines
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.csv_wide import MAX_RECORD_BYTES
from syncblocks.connectors.files.json_source import JSONSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.paths import DataFile
from syncblocks.connectors.files.settings import CSVSourceSettings
from syncblocks.connectors.read_spec import MaskRule, Masks
from syncblocks.connectors.rejected.limits import too_many
from syncblocks.connectors.rejected.records import rejection
from syncblocks.connectors.stream import Rejected, RejectedRecord
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.flow.masked import MaskedSource
from syncblocks.sync.flow.masked_errors import hidden_error, hidden_rejected
from tests.connectors.singer.singer_helpers import ORDERS, lines, read, record, schema

COLUMNS = ("id", "stamp", "note")
MASKS = Masks(rules=(MaskRule(column="note", how="null"),), key=b"")
REST = "; the rest of the message is not shown: it may hold values of masked columns)"

#: Format, text, what is shown behind the folder; `...`: and that the rest is not.
FILES: dict[str, tuple[type[Any], bytes, str]] = {
    "csv fields": (CSVSource, b"id,note\n1,a\n2,canary,3\n", "t.csv:3: 3 fields for 2 columns..."),
    "csv quote": (CSVSource, b'id,note\n1,a\n2,"canary\n', "t.csv:3: a quoted field does not end..."),
    "csv encoding": (
        CSVSource,
        b"id,note\n1,a\n2,canary\xff\n",
        "t.csv:3: not encoded in utf-8; `config.encoding` names another one, such as cp1252",
    ),
    "jsonl": (JSONLSource, b'{"id": 1}\n{"note": "canary\n', "t.jsonl:2: not a JSON object in UTF-8..."),
    "jsonl value": (
        JSONLSource,
        b'{"id": "canary"}\n',
        "t.jsonl:1: column 'id' has a value that cannot be read...",
    ),
    "json": (JSONSource, b'[{"id": 1}, {"note": canary}]', "t.json: [1]: broken JSON..."),
    "json member": (JSONSource, b'[{"id": 1}, "canary"]', "t.json: [1] is no object..."),
    "json begin": (JSONSource, b'canary [{"id": 1}]', "t.json: broken JSON at byte 1..."),
    "json end": (JSONSource, b'[{"id": 1}, {"note": "canary', "t.json: [1]: broken JSON..."),
    "json empty": (JSONSource, b" ", "t.json: is empty, so not a JSON document"),
    "json encoding": (
        JSONSource,
        '[{"note": "canary"}]'.encode("utf-16"),
        "t.json: is not a JSON document; it is UTF-16: save the file in UTF-8, which JSON requires",
    ),
}

#: Line, what an error shows, the reason that a rejected record shows; None: the line belongs to no record.
LINES: dict[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b"canary {", "tap tap-x: line 2 is not JSON...", None),
    "no message": (b'{"note": "canary"}', "tap tap-x: line 2 is not a Singer message...", None),
    "no object": (b'["canary", NaN]', "tap tap-x: line 2 is not a Singer message, which must be an object...", None),
    "no stream": (b'{"type": "RECORD"}', "tap tap-x: line 2 is a RECORD without a stream", None),
    "half a record": (
        json.dumps(record("orders", id=1, note="canary")).encode()[:-3],
        "tap tap-x, stream 'orders': line 2 is not JSON...",
        "is not JSON",
    ),
    "no record": (
        b'{"type": "RECORD", "stream": "orders"}',
        "tap tap-x, stream 'orders': line 2 is a RECORD without a record",
        "is a RECORD without a record",
    ),
    "no object for a record": (
        b'{"type": "RECORD", "stream": "orders", "record": ["canary", NaN]}',
        "tap tap-x, stream 'orders': line 2 is not a record (a JSON object)...",
        "is not a record (a JSON object)",
    ),
    "no key": (
        json.dumps(record("orders", note="canary")).encode(),
        "tap tap-x, stream 'orders': line 2 has no value for the key 'id'",
        "has no value for the key 'id'",
    ),
    "another type": (
        json.dumps(record("orders", id="canary")).encode(),
        "tap tap-x, stream 'orders': line 2: column 'id' has a value that cannot be read...",
        "column 'id': \"canary\" is not int64, the type in its schema",  # `id` has no mask
    ),
}


def shown(error: Exception) -> str:
    """Return what masks show, with `...` for the note on what they do not."""
    text = str(hidden_error(error, COLUMNS))
    assert "canary" not in text.removeprefix(str(Path(text).parent))
    return f"{text[: text.rindex(' (')]}..." if text.endswith(REST) else text


def file_source(kind: type[Any], text: bytes, folder: Path, **config: Any) -> Any:
    path = folder / f"t.{kind.__name__[:-6].lower()}"
    path.write_bytes(text)
    return kind({"path": str(path), **config}, folder)


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read_shows_place_and_reason(case: str, tmp_path: Path) -> None:
    kind, text, wanted = FILES[case]
    source = file_source(kind, text, tmp_path, types={"id": "bigint"})
    with pytest.raises(ConnectorError) as caught:
        list(source.read([source.discover()[0]], {}))
    assert shown(caught.value) == f"{tmp_path}/{wanted}"


@pytest.mark.parametrize("case", LINES)
def test_a_line_of_a_tap_shows_place_and_reason(case: str) -> None:
    line, wanted, reason = LINES[case]
    with pytest.raises(ConnectorError) as caught:
        read(lines(schema("orders"), line), streams=[ORDERS])
    assert shown(caught.value) == wanted
    if reason is None:
        return
    keeping = replace(ORDERS, read=replace(ORDERS.read, max_rejected=5))
    (event,) = [each for _, each in read(lines(schema("orders"), line), streams=[keeping]) if type(each) is Rejected]
    assert hidden_rejected(event, MASKS, COLUMNS).records[0].reason == reason


def test_the_longest_record_of_csv_shows_its_place(tmp_path: Path) -> None:
    lines_of = CSVLines(CSVSourceSettings(path=str(tmp_path)))
    error = lines_of.too_long(DataFile(LocalStorage(tmp_path), "t.csv"), 7, MAX_RECORD_BYTES)
    assert shown(error) == str(error)
    assert "t.csv:7: a record is longer than 1 GiB, the limit of CSV files" in str(error)


def test_errors_of_limits_show_no_record() -> None:
    assert shown(too_many(3, "canary")) == "more than 3 rejected records (`max_rejected`)..."
    wide = "a record of 5 MB is larger than `memory`, 3 MB: raise `memory` in the pipeline file"
    assert shown(too_wide("a record of 5 MB", 3_000_000)) == wide
    assert shown(too_wide("a record (id canary)", 3_000_000, has_no_values=False)) == "the records cannot be read..."


def test_a_stream_of_several_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("id\n1\n")
    (tmp_path / "t.csv").write_bytes(b"id,note\n1,canary,3\n2,canary,4\n")
    source = CSVSource({"path": str(tmp_path)}, tmp_path)
    lists = MaskedSource(source, capabilities_of(source)).adapted().lists_streams
    assert lists is not None
    found = {stream.name: stream.unreadable for stream in lists.open_streams(lists.list_streams())}
    assert found == {"other": "", "t": f"{tmp_path}/t.csv:2: 3 fields for 2 columns"}


def test_a_reason_without_a_statement_of_its_own_is_hidden() -> None:
    plain = hidden_rejected(Rejected(records=(rejection("canary", "canary is wrong"),)), MASKS, COLUMNS)
    assert plain.records == (RejectedRecord(record="null", reason="the records cannot be read"),)


def test_an_error_keeps_across_processes_what_it_shows() -> None:
    whole = pickle.loads(pickle.dumps(FatalConnectorError("no value here", stream="t", has_no_values=True)))
    part = pickle.loads(pickle.dumps(too_many(3, "canary")))
    assert (shown(whole), whole.stream) == ("no value here", "t")
    assert shown(part) == "more than 3 rejected records (`max_rejected`)..."
    event = Rejected(records=(rejection("canary", "wrong: canary", without_values="wrong"),))
    assert hidden_rejected(pickle.loads(pickle.dumps(event)), MASKS, COLUMNS).records[0].reason == "wrong"


def test_what_is_put_around_a_message_is_not_shown() -> None:
    error = FatalConnectorError("no value here", has_no_values=True).extended(after=" (canary)")
    assert shown(error) == "no value here..."
