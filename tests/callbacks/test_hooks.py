"""Notify, webhook and shell against real receivers, called as a callback's process calls them."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from syncblocks.callbacks.child_process import CallEnd, Child
from syncblocks.callbacks.dispatcher import Dispatcher
from syncblocks.callbacks.hooks import run_hook
from syncblocks.callbacks.made_up_events import make_event
from syncblocks.callbacks.notify import hidden, is_known
from syncblocks.callbacks.protocols import Delivery, Prepared
from tests.callbacks.listener import http_listener, smtp_sink
from tests.callbacks.outbox import MemoryOutbox

SECRET = "whsec-Zx81kLq0"


def webhook(url: str, **settings: Any) -> dict[str, Any]:
    event = make_event("success", "orders")
    given = {"secret": None, "headers": {}, "timeout_s": 5.0, **settings}
    return {"kind": "webhook", "url": url, "event": event, "key": event["idempotency_key"], **given}


def shell(command: Any, folder: Path, event: Any = None, **variables: str) -> dict[str, Any]:
    event = make_event("success", "orders") if event is None else event
    return {"kind": "shell", "command": command, "event": event, "folder": str(folder), "variables": variables}


def notification(*urls: str, key: str = "", **settings: Any) -> dict[str, Any]:
    given = {"title": "", "body": "hello", "status": "success", **settings}
    return {"kind": "notify", "urls": list(urls), "key": key, **given}


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TestWebhook:
    def test_the_event_is_posted_as_json_with_its_idempotency_key(self) -> None:
        with http_listener() as listener:
            answer = run_hook(webhook(listener.url("/hooks/a?b=1"), headers={"x-team": "data"}))
        assert answer.kind == "returned"
        (request,) = listener.requests
        assert (request.method, request.path) == ("POST", "/hooks/a?b=1")
        assert request.event == make_event("success", "orders")
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["Idempotency-Key"] == "0" * 32
        assert request.headers["X-Team"] == "data"
        assert not any(name.lower().startswith("x-syncblocks") for name in request.headers)

    def test_the_signature_covers_timestamp_and_body(self) -> None:
        with http_listener() as listener:
            run_hook(webhook(listener.url(), secret=SECRET))
        (request,) = listener.requests
        headers = {name.lower(): value for name, value in request.headers.items()}
        timestamp = headers["x-syncblocks-timestamp"]
        digest = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + request.body, hashlib.sha256).hexdigest()
        assert headers["x-syncblocks-signature"] == f"sha256={digest}"
        assert abs(int(timestamp) - time.time()) < 60

    @pytest.mark.parametrize("status", [300, 302, 307, 308, 400, 404, 429, 500, 503])
    def test_an_answer_other_than_2xx_is_a_failure_that_shows_what_was_said(
        self, status: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with http_listener([status], said=b"no such hook") as listener:
            answer = run_hook(webhook(listener.url("/secret-path")))
        assert answer.kind == "raised"
        assert answer.error is not None
        assert f"answered {status}" in answer.error
        assert "secret-path" not in answer.error
        assert capsys.readouterr().out == "no such hook\n"

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_any_2xx_will_do(self, status: int) -> None:
        with http_listener([status]) as listener:
            assert run_hook(webhook(listener.url())).kind == "returned"

    def test_a_redirect_is_not_followed(self) -> None:
        with http_listener() as other, http_listener([307], location=other.url()) as listener:
            answer = run_hook(webhook(listener.url()))
            assert answer.error is not None
            assert "redirects are not followed" in answer.error
            assert (len(listener.requests), len(other.requests)) == (1, 0)

    def test_no_answer_is_a_failure_without_the_url(self) -> None:
        answer = run_hook(webhook(f"http://user:pa55w0rd@127.0.0.1:{closed_port()}/secret-path"))
        assert answer.error == "webhook: no answer from the receiver: Connection refused"

    def test_a_receiver_that_says_nothing_is_waited_for_until_shortly_before_the_deadline(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            answer = run_hook(webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.2))
        assert answer.error == "webhook: no answer from the receiver: it took too long"

    def test_user_and_password_of_the_url_become_basic_authentication(self) -> None:
        with http_listener() as listener:
            run_hook(webhook(listener.url().replace("http://", "http://ada:p%40ss@")))
        assert listener.requests[0].headers["Authorization"] == "Basic YWRhOnBAc3M="


class TestShell:
    def test_a_list_is_run_as_it_is_and_gets_the_event_on_stdin(self, tmp_path: Path) -> None:
        assert run_hook(shell(["tee", "$HOME; x"], tmp_path)).kind == "returned"
        assert json.loads((tmp_path / "$HOME; x").read_text()) == make_event("success", "orders")

    def test_a_text_is_run_by_sh_in_the_folder(self, tmp_path: Path) -> None:
        assert run_hook(shell("pwd > here && echo $A >> here", tmp_path, A="x y")).kind == "returned"
        assert (tmp_path / "here").read_text() == f"{tmp_path}\nx y\n"

    def test_nothing_of_the_event_becomes_a_part_of_the_command(self, tmp_path: Path) -> None:
        event = make_event("success", "$(touch pwned); `touch pwned`")
        hook = shell('printf %s "$SYNCBLOCKS_STREAM" > told', tmp_path, event, SYNCBLOCKS_STREAM=event["stream"])
        assert run_hook(hook).kind == "returned"
        assert (tmp_path / "told").read_text() == event["stream"]
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize(
        ("command", "error"),
        [
            ("exit 3", "shell: the command ended with exit code 3"),
            (
                "A=1 no_such_program x",
                "shell: the shell finds no program 'no_such_program'; install it, or write its full path",
            ),
            (
                "cd . && true; no_such_program",
                "shell: the shell finds no program 'no_such_program'; install it, or write its full path",
            ),
            ("exit 127", "shell: the command ended with exit code 127; the shell did not find a program"),
            ("kill -9 $$", "shell: the command was killed by SIGKILL"),
            (
                ["/no/such/program"],
                "shell: the shell finds no program '/no/such/program'; install it, or write its full path",
            ),
        ],
    )
    def test_a_command_that_fails_is_a_failure(self, command: Any, error: str, tmp_path: Path) -> None:
        answer = run_hook(shell(command, tmp_path))
        assert (answer.kind, answer.error) == ("raised", error)

    def test_a_command_need_not_read_a_large_event(self, tmp_path: Path) -> None:
        event = make_event("success", "orders", event={"x": "y" * 1_000_000})
        assert run_hook(shell("exec 0<&-; true", tmp_path, event)).kind == "returned"

    def test_what_an_environment_cannot_hold_is_escaped(self, tmp_path: Path) -> None:
        hook = shell('printf %s "$A" > told', tmp_path, A="a\0b\udc80")
        assert run_hook(hook).kind == "returned"
        assert (tmp_path / "told").read_text() == "a\\0b\\udc80"

    def test_output_reaches_the_call_and_the_deadline_ends_what_it_started(self, tmp_path: Path) -> None:
        child = Child("alerts", kill_grace_s=0.2)
        try:
            hook = shell("echo said; echo also >&2; sleep 60 & echo $! > pid; wait", tmp_path)
            end = child.call({"function": "shell", "hook": hook}, timeout_s=1.0)
        finally:
            child.kill()
        assert end.kind == "timeout"
        assert b"said\nalso\n" in end.output
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(int((tmp_path / "pid").read_text()))
            _, alive = psutil.wait_procs([started], timeout=2)
            # Dead, though perhaps not reaped by whoever adopts orphans here.
            assert [process.status() for process in alive] in ([], [psutil.STATUS_ZOMBIE])


class TestNotify:
    def test_a_url_gets_title_text_and_kind(self) -> None:
        with http_listener() as listener:
            url = f"json://127.0.0.1:{listener.port}/path"
            answer = run_hook(notification(url, title="shop", body="{{ x }} & <b>", status="failure"))
        assert answer.kind == "returned"
        sent = listener.requests[0].event
        assert (sent["title"], sent["message"], sent["type"]) == ("shop", "{{ x }} & <b>", "failure")

    def test_mail_is_sent(self) -> None:
        with smtp_sink() as mailbox:
            url = f"mailto://127.0.0.1:{mailbox.port}?from=a@example.com&to=b@example.com&mode=insecure"
            answer = run_hook(notification(url, title="Sync of today", body="12 rows"))
        assert answer.kind == "returned", answer.error
        (mail,) = mailbox.mails
        assert "Subject: Sync of today" in mail
        assert "b@example.com" in mail

    def test_what_was_reached_is_not_notified_again(self, capsys: pytest.CaptureFixture[str]) -> None:
        with http_listener() as one, http_listener([500, 200]) as two:
            urls = [f"json://127.0.0.1:{listener.port}/" for listener in (one, two)]
            first = run_hook(notification(*urls, key="k1"))
            second = run_hook(notification(*urls, key="k1"))
            third = run_hook(notification(*urls, key="k2"))
        assert first.error == "notify: URL 2 (json) was not notified"
        assert (second.kind, third.kind) == ("returned", "returned")
        assert (len(one.requests), len(two.requests)) == (2, 3)
        assert "500" in capsys.readouterr().out

    def test_no_part_of_a_url_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        port = closed_port()
        answer = run_hook(notification(f"json://user:pa55word@127.0.0.1:{port}/T0ken/secret?x=y", "slak://T0ken"))
        shown = f"{answer.error}{capsys.readouterr()}"
        assert answer.error == "notify: URL 1 (json) was not notified; URL 2 (slak) is not a URL that Apprise knows"
        assert not [part for part in ("pa55word", "T0ken", "secret", str(port)) if part in shown]

    def test_hidden_masks_every_spelling_of_a_part(self) -> None:
        url = "slack://AAAA1/bb%2Fcc/dddd?to=eeee"
        assert hidden("POST /AAAA1/ bb/cc bb%2Fcc dddd eeee to", url) == "POST /***/ *** *** *** *** to"

    @pytest.mark.parametrize(("url", "known"), [("json://localhost", True), ("slak://x", False), ("mailto://", False)])
    def test_urls_are_judged_without_connecting(self, url: str, known: bool) -> None:
        assert is_known(url) is known


def test_an_error_that_nobody_foresaw_is_told_by_its_kind_only() -> None:
    answer = run_hook(webhook("http://127.0.0.1/", headers={"X-A": "b\nsecret"}))
    assert answer.error == "webhook: no answer from the receiver: ValueError"
    assert run_hook({"kind": "shell", "command": [], "event": {}, "folder": "."}).error == "shell failed: KeyError"
    assert run_hook({"kind": "fax"}).error == "unknown hook 'fax'"


def delivery(hook: dict[str, Any] | None, *, attempts: int = 3, timeout_s: float = 20.0) -> Delivery:
    kwargs = make_event("success", "orders")
    return Delivery(
        key="k",
        callback_block="alerts",
        function="hook",
        file="",
        attempt=0,
        attempts=attempts,
        timeout_s=timeout_s,
        kwargs=kwargs,
        data=None,
        label="export:orders",
        hook=hook,
    )


@pytest.mark.parametrize("inline", [False, True])
def test_a_failed_call_is_repeated_by_the_deliverys_attempts(inline: bool) -> None:
    box = MemoryOutbox()
    with http_listener([500, 503, 200]) as listener:
        box.add(delivery(webhook(listener.url())))
        dispatcher = Dispatcher(box, ["alerts"], inline=inline)
        assert dispatcher.drain(30)
        dispatcher.close()
    assert box.kinds == [("hook", "raised"), ("hook", "raised"), ("hook", "returned")]
    keys = {request.headers["Idempotency-Key"] for request in listener.requests}
    assert (len(listener.requests), keys) == (3, {"0" * 32})


def test_a_delivery_that_is_not_wanted_is_done_without_a_call() -> None:
    box = MemoryOutbox()
    box.add(delivery({"kind": "fax"}))
    dispatcher = Dispatcher(box, ["alerts"], prepare=lambda delivery, kwargs: Prepared(is_wanted=False))
    assert dispatcher.drain(30)
    dispatcher.close()
    ((_, outcome, verdict),) = box.outcomes
    assert (outcome.ok, outcome.kind, verdict) == (True, "skipped", "done")


def test_what_cannot_be_prepared_is_a_failure_with_masked_reason() -> None:
    def prepare(delivery: Delivery, kwargs: dict[str, Any]) -> Prepared:
        raise LookupError("no secret 'x' in hunter22")

    box = MemoryOutbox()
    box.add(delivery(None, attempts=1))
    redact = lambda text: text.replace("hunter22", "***")  # noqa: E731
    dispatcher = Dispatcher(box, ["alerts"], prepare=prepare, redact=redact)
    assert dispatcher.drain(30)
    dispatcher.close()
    outcome = box.outcome("hook")
    assert (outcome.kind, outcome.error) == ("load", "the call cannot be prepared: no secret 'x' in ***")


def test_a_call_that_the_engine_makes_is_interrupted_by_close() -> None:
    class Local:
        def __init__(self) -> None:
            self.started, self.ended = threading.Event(), threading.Event()

        def run(self, timeout_s: float) -> CallEnd:
            self.started.set()
            assert self.ended.wait(30)
            return CallEnd(kind="interrupted", error="cut short", output=b"")

        def interrupt(self) -> None:
            self.ended.set()

    local = Local()
    box = MemoryOutbox()
    box.add(delivery(None, attempts=1))
    dispatcher = Dispatcher(box, ["alerts"], prepare=lambda delivery, kwargs: Prepared(local=local))
    dispatcher.start()
    assert local.started.wait(30)
    dispatcher.close()
    assert box.kinds == [("hook", "interrupted")]
