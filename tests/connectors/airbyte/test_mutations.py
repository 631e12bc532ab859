"""Damaged output of a connector: it is read, or it is an error of the connector, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from syncblocks.connectors.errors import ConnectorError

from .airbyte_helpers import offered
from .airbyte_program import error, record, state, status
from .test_reader import orders, read, text

pytestmark = pytest.mark.full

MESSAGES = [
    *orders(1, 2),
    record("users", id=7),
    state("orders", {"stamp": "0002", "states": [{"cursor": {"stamp": "1"}}]}, 2),
    status("orders", "STARTED"),
    {"type": "LOG", "log": {"level": "INFO", "message": "x"}},
    {"type": "TRACE", "trace": {"type": "ESTIMATE", "estimate": {"name": "orders", "row_estimate": 7}}},
    error("no", "orders", failure_type="config_error", internal_message="i", stack_trace="s"),
    {"type": "CONTROL", "control": {"type": "CONNECTOR_CONFIG", "connectorConfig": {"config": {"a": 1}}}},
    status("orders", "INCOMPLETE"),
    state("users", {"n": 1}, 1),
    status("users", "COMPLETE"),
    state("orders", {"stamp": "0002"}, 0),
]

ODD: list[Any] = [
    *(None, True, 0, -1, 1e400, 1.5, 2**70, "", "x", "orders", "\ud800", "\0"),
    *([], [1], ["orders"], {}, {"stream": 1}, {"name": "orders"}, [[[]]], {"a": {"b": [None]}}),
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each part of a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a value with another part at a path."""
    if not path:
        return new
    made = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = changed(made[path[0]], path[1:], new)
    return made


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_connector_writes_is_read_or_refused(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(50):
        messages: list[Any] = list(MESSAGES)
        if dice.random() < 0.3:
            dice.shuffle(messages)
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(messages))
            path = dice.choice(list(paths(messages[place])))
            messages[place] = changed(messages[place], path, dice.choice(ODD))
        output = bytearray(text(*(json.dumps(each).encode() for each in messages)))
        for _ in range(dice.choice([0, 0, 1, 3])):
            output[dice.randrange(len(output))] = dice.randrange(256)
        with suppress(ConnectorError):
            read(bytes(output), entries=[offered("orders")] if dice.random() < 0.3 else ())
