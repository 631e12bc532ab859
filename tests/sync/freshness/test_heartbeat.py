"""The heartbeat calls a URL that is shown nowhere."""

from __future__ import annotations

import logging
import socket

import pytest

from syncblocks.sync.errors import ConfigError
from syncblocks.sync.freshness import heartbeat, heartbeat_url
from tests.callbacks.listener import http_listener


def test_a_heartbeat_is_one_get(caplog: pytest.LogCaptureFixture) -> None:
    with http_listener([200, 503, 302]) as listener, caplog.at_level(logging.INFO, "syncblocks"):
        url = listener.url("/ping/t0ken?a=b").replace("//", "//watch:pa55word@")
        assert [heartbeat(url) for _ in range(3)] == [True, False, False]
    assert [(each.method, each.path) for each in listener.requests] == [("GET", "/ping/t0ken?a=b")] * 3
    assert [each.getMessage() for each in caplog.records] == [
        "heartbeat: the receiver answered 503; redirects are not followed",
        "heartbeat: the receiver answered 302; redirects are not followed",
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/t0ken", "http://[bad/t0ken", "http://127.0.0.1:x/t0ken"])
def test_no_answer_is_logged_without_the_url(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as silent, caplog.at_level(logging.INFO, "syncblocks"):
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # and nobody answers
        assert not heartbeat(url.replace("{port}", str(silent.getsockname()[1])), timeout_s=0.05)
    (record,) = caplog.records
    assert record.getMessage().startswith("heartbeat: no answer from the receiver: ")
    assert "t0ken" not in caplog.text


def test_the_variable_must_hold_a_url() -> None:
    assert heartbeat_url("HEART", {"HEART": " https://example.com/x "}) == "https://example.com/x"
    for environ in ({}, {"HEART": ""}, {"HEART": "file:///t0ken"}):
        with pytest.raises(ConfigError) as caught:
            heartbeat_url("HEART", environ)
        assert "t0ken" not in str(caught.value)
