"""What stands in for a dispatcher does as one without queues does."""

from __future__ import annotations

from inspect import signature
from typing import Any, cast

import pytest

from syncblocks.callbacks.dispatcher import Dispatcher
from syncblocks.callbacks.null_dispatcher import NullDispatcher


@pytest.mark.parametrize("name", ["notify", "drain", "close"])
def test_it_is_called_as_a_dispatcher_is(name: str) -> None:
    found, expected = (signature(getattr(each, name)) for each in (NullDispatcher, Dispatcher))
    assert list(found.parameters) == list(expected.parameters)


def test_nothing_is_ever_open() -> None:
    for each in (NullDispatcher(), Dispatcher(cast(Any, None), [])):
        each.notify()
        assert each.drain(None) is True
        each.close(grace_s=1.0)
