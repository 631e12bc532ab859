from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks.callbacks.testing import call, make_event

FILE = """
@callback('failure')
def alert(*, stream, __error):
    print(f'{stream}: {__error}')
    return 'alerted'

@on_failure
def old(**kwargs):
    return 'old'

@callback
def finish(df, is_last_block_run):
    return df if is_last_block_run else None
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "alerts.py"
    path.write_text(FILE)
    return path


def test_a_status_calls_all_functions_that_serve_it_in_order(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = call(file, "failure", make_event("failure", stream="orders"))
    assert [(item.function, item.value) for item in called] == [("old", "old"), ("alert", "alerted")]
    assert capsys.readouterr().out == "orders: made by syncblocks.callbacks.testing\n"


def test_a_name_calls_one_function_and_hands_over_the_data(file: Path) -> None:
    assert call(file, "finish", make_event(), "frame")[0].value == "frame"
    assert call(file, "finish", make_event(is_last_block_run=False), "frame")[0].value is None


def test_nothing_to_call_is_an_error_that_lists_what_there_is(file: Path) -> None:
    with pytest.raises(LookupError, match=r"alert \(failure\)"):
        call(file, "finsh", make_event())
    with pytest.raises(LookupError, match="'cancelled'"):
        call(file, "cancelled", make_event("cancelled"))


def test_what_a_function_raises_is_raised(tmp_path: Path) -> None:
    file = tmp_path / "alerts.py"
    file.write_text("@callback\ndef tell(**kwargs): raise ValueError('no channel')\n")
    with pytest.raises(ValueError, match="no channel"):
        call(file, "success", make_event())


def test_an_event_of_a_status_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown status 'failed'; did you mean 'failure'\? Allowed: success, "):
        make_event("failed")
