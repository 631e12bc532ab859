"""Output is masked while a run is under way, and is what it was when the last of several has ended."""

from __future__ import annotations

import io
import sys

import pytest

from syncblocks.sync.delivery.masked_output import masked_output
from syncblocks.sync.secrets import Redactor


def test_runs_that_overlap_leave_the_streams_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    first, second = masked_output(Redactor(["one-secret"])), masked_output(Redactor(["other-secret"]))
    first.__enter__()
    second.__enter__()
    print("one-secret other-secret")  # noqa: T201
    first.__exit__(None, None, None)
    print("one-secret other-secret")  # noqa: T201
    second.__exit__(None, None, None)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "*** ***\none-secret ***\n"


def test_a_secret_that_comes_in_pieces_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    with masked_output(Redactor(["one-secret"])):
        print("one-", end="")  # noqa: T201
        print("secret")  # noqa: T201
        print("no line end", end="")  # noqa: T201
    assert capsys.readouterr().out == "***\nno line end"


def test_bytes_are_masked_in_their_order_among_texts(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    secret = "schl\u00fcssel-secret"
    first, second = secret.encode()[:5], secret.encode()[5:]  # within one character
    with masked_output(Redactor([secret])):
        print("text, then", end=" ")  # noqa: T201
        assert sys.stdout.buffer.write(first) == 5
        sys.stdout.buffer.write(bytearray(second + b"\n"))
        print("text again")  # noqa: T201
        sys.stdout.buffer.writelines([b"\x80\xff no text\n", b"rest ", secret.encode()])
        sys.stdout.buffer.flush()
        print(secret)  # noqa: T201
        sys.stderr.buffer.write(secret.encode())
        assert sys.stdout.buffer.fileno() == sys.stdout.fileno()
    shown = capfdbinary.readouterr()
    assert shown.out == b"text, then ***\ntext again\n\x80\xff no text\nrest ******\n"
    assert shown.err == b"***"


def test_a_stream_without_bytes_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with masked_output(Redactor(["one-secret"])):
        assert not hasattr(sys.stdout, "buffer")


def test_a_process_without_streams_and_one_that_exchanges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    own = sys.stdout
    with masked_output(Redactor(["s3cret"])):
        assert sys.stderr is None
        monkeypatch.setattr(sys, "stdout", own)
    assert sys.stdout is own


def test_closing_it_leaves_the_stream_of_the_engine_open(capfd: pytest.CaptureFixture[str]) -> None:
    with masked_output(Redactor([])):
        for stream in (sys.stdout.buffer, sys.stdout):
            print("written", end=" ")  # noqa: T201
            stream.close()
    print("open still")  # noqa: T201
    assert capfd.readouterr().out == "written written open still\n"
