"""How a destination of CSV writes its files, and that it reads them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncblocks import PipelineFailed, RunResult, run_pipeline
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import count_streams, opened

RECORDS = 'id,text\n1,a;b\n2,\n3,"x ""y"""\n4,ä\n'


def pipeline(folder: Path, disposition: str = "append", records: str = RECORDS, **written: Any) -> Any:
    (folder / "in.csv").write_text(records)
    document = {
        "pipeline": "p",
        "source": {"connector": "csv", "config": {"path": "in.csv"}},
        "destination": {"connector": "csv", "config": {"path": "out", **written}},
        "streams": [{"stream": "in", "write_disposition": disposition, "key_properties": ["id"]}],
    }
    return load_pipeline(document, folder=folder)


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "out").rglob("*.csv"))]


def test_a_file_is_written_as_the_settings_say_and_read_again(tmp_path: Path) -> None:
    written = {"delimiter": ";", "header": False, "encoding": "utf-16"}
    run_pipeline(pipeline(tmp_path, "merge", **written))
    expected = '1;"a;b"\n2;\n3;"x ""y"""\n4;"ä"\n'
    assert [data.decode("utf-16") for data in files(tmp_path)] == [expected]
    changed = pipeline(tmp_path, "merge", "id,text\n2,b\n5,\n", **written)
    assert run_pipeline(changed).status == "success"
    (data,) = files(tmp_path)
    assert sorted(data.decode("utf-16").splitlines()) == ['1;"a;b"', '2;"b"', '3;"x ""y"""', '4;"ä"', "5;"]
    with opened(changed) as session:
        (counted,) = count_streams(session).streams
    assert counted.destination == 5


def error(result: RunResult) -> str:
    (stream,) = result.streams
    assert result.status == "failure"
    return str(stream.error)


def test_without_quotes_a_text_that_needs_them_fails_the_stream(tmp_path: Path) -> None:
    plain = "id,text\n1,a b\n2,ä\n"
    assert run_pipeline(pipeline(tmp_path, records=plain, quote="", delimiter="\t")).status == "success"
    assert files(tmp_path) == ["id\ttext\n1\ta b\n2\tä\n".encode()]
    assert "remove `quote`" in error(run_pipeline(pipeline(tmp_path, records=RECORDS, quote="", delimiter="\t")))


@pytest.mark.parametrize(
    ("quoting", "expected"),
    [
        ("texts", 'id,text,n\n1,"a;b",\n2,,1.5\n3,"x ""y""",2\n4,"",\n'),
        ("all", '"id","text","n"\n"1","a;b",\n"2",,"1.5"\n"3","x ""y""","2"\n"4","",\n'),
        ("needed", 'id,text,n\n1,a;b,\n2,,1.5\n3,"x ""y""",2\n4,"",\n'),
    ],
)
def test_what_is_quoted_is_read_again(tmp_path: Path, quoting: str, expected: str) -> None:
    records = 'id,text,n\n1,a;b,\n2,,1.5\n3,"x ""y""",2\n4,"",\n'
    assert run_pipeline(pipeline(tmp_path, "merge", records, quoting=quoting)).status == "success"
    assert [data.decode() for data in files(tmp_path)] == [expected]
    changed = pipeline(tmp_path, "merge", "id,text,n\n5,e,\n", quoting=quoting)
    assert run_pipeline(changed).status == "success"
    with opened(changed) as session:
        assert count_streams(session).streams[0].destination == 5
    with pytest.raises(ConfigError, match="turns them off"):
        run_pipeline(pipeline(tmp_path, quote="", quoting="all"))


def test_a_letter_that_the_encoding_lacks_fails_the_stream(tmp_path: Path) -> None:
    assert "'ä', which ascii does not have" in error(run_pipeline(pipeline(tmp_path, encoding="ascii")))
    assert files(tmp_path) == []


def test_the_name_of_a_column_may_need_quotes(tmp_path: Path) -> None:
    run_pipeline(pipeline(tmp_path, records="id,a;b\n1,x\n", delimiter=";"))
    assert files(tmp_path) == [b'id;"a;b"\n1;"x"\n']


def test_a_line_break_in_the_name_of_a_column_is_quoted(tmp_path: Path) -> None:
    for records in ('id,"a\rb"\n1,x\n', 'id,"a\rb"\n2,y\n'):
        run_pipeline(pipeline(tmp_path, "merge", records=records))
    assert files(tmp_path) == [b'id,"a\rb"\n1,"x"\n2,"y"\n'], "the second run has read what the first one wrote"


def test_a_table_is_written_in_one_way(tmp_path: Path) -> None:
    run_pipeline(pipeline(tmp_path, delimiter=";"))
    with pytest.raises(PipelineFailed, match=r"written with another `delimiter`, `header`: .*--full-refresh"):
        run_pipeline(pipeline(tmp_path, delimiter="|", header=False)).raise_for_status()
    assert run_pipeline(pipeline(tmp_path, delimiter="|"), full_refresh=True).status == "success"
    assert run_pipeline(pipeline(tmp_path, delimiter="|")).status == "success"
    assert all(data.startswith(b"id|text") for data in files(tmp_path))
