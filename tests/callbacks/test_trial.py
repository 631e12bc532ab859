from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from syncblocks.callbacks.kwargs import STATUSES
from syncblocks.callbacks.testing import make_event, try_file


def write(folder: Path, text: str) -> Path:
    path = folder / "alerts.py"
    path.write_text(text)
    return path


def test_a_function_is_called_in_a_child_and_its_end_is_told(tmp_path: Path) -> None:
    file = write(
        tmp_path, "import os\n@callback\ndef tell(stream, index):\n    print('hi', stream)\n    return os.getpid()\n"
    )
    (trial,) = try_file(file)
    assert (trial.function, trial.status) == ("tell", "success")
    assert dict(trial.received) == {"stream": "'users'", "index": "0"}
    assert trial.outcome.ok
    assert trial.outcome.output == "hi users\n"
    assert int(trial.outcome.value or 0) not in (0, os.getpid())


def test_inline_calls_in_this_process(tmp_path: Path) -> None:
    file = write(tmp_path, "import os\n@callback\ndef tell():\n    return os.getpid()\n")
    (trial,) = try_file(file, inline=True)
    assert int(trial.outcome.value or 0) == os.getpid()


def test_without_a_status_every_one_that_the_file_serves_is_made(tmp_path: Path) -> None:
    marks = "".join(f"@callback({status!r})\n" for status in STATUSES)
    trials = try_file(write(tmp_path, f"{marks}def tell(index, __error=None):\n    return str(__error)\n"))
    assert [trial.status for trial in trials] == list(STATUSES)
    with_error = {trial.status for trial in trials if trial.outcome.value != "'None'"}
    assert with_error == {"failure", "retry", "crashed"}
    by_status = {trial.status: trial.received["index"] for trial in trials}
    assert by_status["retry"] == by_status["schema_changed"] == "None"
    assert by_status["success"] == "0"


@pytest.mark.one_of
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".arrow"])
def test_data_comes_from_a_file(tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"rows{suffix}", pa.table({"id": [7, 8]})
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text({".csv": "id\n7\n8\n", ".jsonl": '{"id": 7}\n{"id": 8}\n'}[suffix])
    (trial,) = try_file(write(tmp_path, "@callback\ndef load(df):\n    return df['id'].tolist()\n"), data=path)
    assert trial.outcome.value == "[7, 8]"
    assert trial.data == "2 rows: id int64, as 'df'"


def test_data_is_made_up_and_given_only_where_a_run_gives_it(tmp_path: Path) -> None:
    text = "@callback\n@callback('failure')\ndef load(df):\n    return None if df is None else len(df)\n"
    success, failure = try_file(write(tmp_path, text))
    assert (success.outcome.value, failure.outcome.value) == ("3", "None")
    assert "made up" in success.data
    assert "only success" in failure.data


def test_a_file_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "@callback\ndef load(df): ...\n")
    with pytest.raises(ValueError, match=r"\.parquet, \.csv"):
        try_file(file, data=tmp_path / "rows.xlsx")


def test_what_goes_wrong_is_an_outcome(tmp_path: Path) -> None:
    text = (
        "import os, signal, time\n@callback\ndef a():\n    raise ValueError('no')\n"
        "@callback\ndef b():\n    os.kill(os.getpid(), signal.SIGKILL)\n@callback\ndef c():\n    time.sleep(60)\n"
    )
    file = write(tmp_path, text)
    raised, killed, late = try_file(file, timeout_s=0.5)
    assert [trial.outcome.kind for trial in (raised, killed, late)] == ["raised", "exited", "timeout"]
    assert (raised.outcome.error or "").startswith(f"ValueError: no, at {file}:4\n")
    assert signal.SIGKILL.name in (killed.outcome.error or "")


def test_what_is_returned_is_cut_and_may_have_no_repr(tmp_path: Path) -> None:
    text = (
        "class Odd:\n    def __repr__(self): raise TypeError('no')\n"
        "@callback\ndef a():\n    return 'x' * 100_000\n@callback\ndef b():\n    return Odd()\n"
    )
    long, odd = try_file(write(tmp_path, text))
    assert len(long.outcome.value or "") < 1100
    assert odd.outcome.value == "<Odd, its repr raised TypeError>"


def test_an_event_of_the_pipeline_has_sums_and_no_stream(tmp_path: Path) -> None:
    event = make_event("failure", "orders", parent="pipeline")
    assert "stream" not in event
    assert event["totals"]["failure"] == 1
    assert event["failed_streams"][0]["stream"] == "orders"
    (trial,) = try_file(
        write(tmp_path, "@callback('failure')\ndef tell(never_started, totals): ...\n"),
        statuses=["failure"],
        event=lambda status: make_event(status, parent="pipeline"),
        parents=["pipeline"],
    )
    assert set(trial.received) == {"never_started", "totals"}


def test_words_of_on_name_a_block(tmp_path: Path) -> None:
    assert make_event(parent="source")["parent_block_uuid"] == "load_memory"
    assert make_event(parent="stream")["parent_block_uuid"] == "export_memory"
    assert make_event(parent="load_crm")["parent_block_uuid"] == "load_crm"
