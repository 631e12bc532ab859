"""The heartbeat calls a URL that is shown nowhere."""

from __future__ import annotations

import socket

import pytest

from syncblocks.sync.errors import ConfigError
from syncblocks.sync.freshness import heartbeat, heartbeat_url
from tests.callbacks.listener import http_listener


def test_a_heartbeat_is_one_get_that_follows_no_redirect() -> None:
    with http_listener([200, 503, 302], location="http://127.0.0.1:9/") as listener:
        url = listener.url("/ping/t0ken?a=b").replace("//", "//watch:pa55word@")
        said = [heartbeat(url) for _ in range(3)]
    assert [(each.method, each.path) for each in listener.requests] == [("GET", "/ping/t0ken?a=b")] * 3
    answered = "the receiver answered {}; redirects are not followed"
    assert said == [None, answered.format(503), answered.format(302)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/t0ken", "http://[bad/t0ken", "http://127.0.0.1:x/t0ken"])
def test_that_there_is_no_answer_is_told_without_the_url(url: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # and nobody answers
        said = heartbeat(url.replace("{port}", str(silent.getsockname()[1])), timeout_s=0.05)
    assert said is not None
    assert said.startswith("no answer from the receiver: ")
    assert "t0ken" not in said


def test_the_variable_must_hold_a_url() -> None:
    assert heartbeat_url("HEART", {"HEART": " https://example.com/x "}) == "https://example.com/x"
    for environ in ({}, {"HEART": ""}, {"HEART": "file:///t0ken"}):
        with pytest.raises(ConfigError) as caught:
            heartbeat_url("HEART", environ)
        assert "t0ken" not in str(caught.value)
