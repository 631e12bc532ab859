"""The example that callback blocks began with, word for word: three functions, no import, on two blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sync.pipelines import Bench

#: As Mage's page has it; a comment is no body, so each function got the one line that tells it was called.
SEED = """
@callback('success')
def hello_world(parent_block_data, **kwargs):
    # some code...
    _called('hello_world', kwargs, parent_block_data)


@callback('failure')
def alert_me(parent_block_data, **kwargs):
    # some code...
    _called('alert_me', kwargs, parent_block_data)

@callback('cancelled')
def notify_cancelled(parent_block_data, **kwargs):
    # some code...
    _called('notify_cancelled', kwargs, parent_block_data)
"""

CALLED = """

def _called(name, kwargs, data):
    from pathlib import Path
    records = "none" if data is None else len(data)
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(f"{name} {kwargs['parent_block_uuid']} {kwargs['stream']} {records}\\n")
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    (tmp_path / "fireball_callback.py").write_text(SEED + CALLED)
    made.document |= {
        "concurrency": 3,
        "callbacks": [{"file": "fireball_callback.py", "on": ["load", "export"]}],
    }
    for name in ("good", "bad", "slow"):
        made.seed(name, 4)
    made.document["streams"] = [{"stream": "good"}, {"stream": "bad"}, {"stream": "slow"}]
    return made


def called(bench: Bench) -> list[str]:
    return sorted((bench.folder / "fireball_callback.log").read_text().splitlines())


@pytest.mark.full
def test_the_right_function_is_called_for_a_stream_that_succeeds_fails_and_is_cancelled(bench: Bench) -> None:
    """Strictly in order: the first succeeds, the second fails in its second batch, which cancels nothing yet."""
    bench.document["source"]["config"] |= {"batch_size": 1, "delay_s": 0.2, "fail_at": {"bad": 2}}
    bench.document["streams"] = [{"stream": "good"}]
    bench.run()
    bench.document["streams"] = [{"stream": "bad"}, {"stream": "slow"}]
    bench.run()
    assert called(bench) == [
        "alert_me load bad none",
        "hello_world export good 4",
        "hello_world load good 4",
        "notify_cancelled export bad none",
        "notify_cancelled export slow none",
        "notify_cancelled load slow none",
    ]


def test_a_transformer_that_fails_leaves_the_loaders_callback_its_data(bench: Bench) -> None:
    """Steps 4 and 5 of the page: the callback block is on the loader and on the transformer."""
    (bench.folder / "clean_column_names.py").write_text("@transformer\ndef clean(df):\n    raise ValueError('no')\n")
    bench.document |= {
        "transformers": [{"file": "clean_column_names.py"}],
        "callbacks": [{"file": "fireball_callback.py", "on": ["load", "clean_column_names"]}],
        "streams": [{"stream": "good"}],
    }
    bench.run()
    assert called(bench) == ["alert_me clean_column_names good none", "hello_world load good 4"]
    assert list((bench.folder / ".syncblocks" / "spool").iterdir()) == []


def test_a_stream_that_the_destination_fails_leaves_the_data_of_every_block_before_it(bench: Bench) -> None:
    (bench.folder / "halve.py").write_text("@transformer\ndef halve(df):\n    return df[df.id < 2]\n")
    bench.document["destination"]["config"]["fail_on"] = {"good": 1}
    bench.document |= {
        "transformers": [{"file": "halve.py"}],
        "callbacks": [{"file": "fireball_callback.py", "on": ["source", "transformers", "destination"]}],
        "streams": [{"stream": "good"}],
    }
    bench.run()
    assert called(bench) == ["alert_me export good none", "hello_world halve good 2", "hello_world load good 4"]


def test_the_example_loads_as_it_stands_with_a_docstring_for_a_body(bench: Bench) -> None:
    words = SEED.replace("    _called", "    '''some code'''  # _called")
    (bench.folder / "fireball_callback.py").write_text(words)
    bench.document["allow_blocks_to_fail"] = True
    result = bench.run()
    assert (result.exit_code, result.callbacks["done"]) == (0, 6)
