"""The page of a run, its event stream and its buttons, without a browser; runs are rows that the test writes."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.serve.web import live
from syncblocks.sync.store.model import PipelineRun, StreamPlan
from tests.sync.serve.serve_helpers import Place
from tests.sync.serve.web.web_helpers import Site, served
from tests.sync.store.store_helpers import CALLBACKS, attempt_plan, begin, deliver_all, outcome, query, stream_plan

HOSTILE = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("crm")
    return made


@pytest.fixture
def site(place: Place) -> Iterator[Site]:
    with served(place) as made:
        made.sign_in()
        yield made


def started(site: Site, *streams: str, **options: Any) -> tuple[PipelineRun, list[StreamPlan]]:
    """Begin a run and claim its streams."""
    plans = [stream_plan(name) for name in streams or ("a", "b")]
    run = begin(site.store, attempt_plan(plans, ["stream", "pipeline"], allow_blocks_to_fail=True), "crm", **options)
    site.store.claim(run.id, [plan.stream for plan in plans])
    return run, plans


def finished(site: Site, run: PipelineRun, plans: list[StreamPlan], *, failed: str = "") -> None:
    for plan in plans:
        site.store.close_stream(run.id, outcome(plan, failed_block="export" if plan.stream == failed else None))
    site.store.end_attempt(run.id)
    outbox = site.store.outbox("crm", CALLBACKS)
    outbox.release_gate(run.id)
    deliver_all(outbox)
    site.store.save_log(run.id, run.attempt, f"a line of {HOSTILE}\r\n")
    site.store.finish_run(run.id)


def figures(stream: str, records: int) -> dict[str, Any]:
    nothing = dict.fromkeys(("records_per_s", "percent", "bookmark_before", "bookmark_after", "error"))
    known = {"records": records, "committed": 0, "rejected": 0, "size_bytes": 80, "retries": 0, "still_s": 0}
    return {"attempt": 1, "is_remote": False, "streams": [{"stream": stream, "state": "reading", **known, **nothing}]}


class Events:
    """Reads an event stream."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.answer = answer
        self.comments = 0

    def next(self) -> tuple[str, str]:
        """Return kind and text of the next event."""
        kind, data = "", []
        while True:
            line = self.answer.readline().decode()
            assert line, "the stream has ended"
            field, _, value = line.rstrip("\n").partition(":")
            if field == "event":
                kind = value.strip()
            elif field == "data":
                data.append(value.removeprefix(" "))
            elif line.startswith(":"):
                self.comments += 1
            elif line == "\n" and kind:
                return kind, "\n".join(data)

    def until(self, text: str) -> str:
        """Return the first event that holds a text."""
        while True:
            kind, data = self.next()
            if text in data:
                return kind


@contextmanager
def listening(site: Site, run_id: int) -> Iterator[Events]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request("GET", f"/runs/{run_id}/events", headers=site.headers)
        yield Events(connection.getresponse())
    finally:
        connection.close()


def test_the_event_stream_tells_what_changes_and_ends_with_the_run(site: Site, place: Place) -> None:
    run, plans = started(site, "a", HOSTILE)
    with listening(site, run.id) as events:
        headers = {name.lower(): value for name, value in events.answer.getheaders()}
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert events.until("2 running of 2 streams") == "run"
        site.store.write_progress({run.id: figures(HOSTILE, 1234)})
        kind, text = events.next()
        while "1,234" not in text:
            kind, text = events.next()
        assert (kind, HOSTILE in text, ESCAPED in text) == ("run", False, True)
        finished(site, run, plans)
        while kind != "over":
            kind, text = events.next()
        assert "2 success of 2 streams" in text
        assert f"a line of {ESCAPED}&#13;" in text
        assert events.answer.read() == b""
    until = "SELECT count(*) FROM _syncblocks_pipeline_run WHERE watched_until IS NOT NULL"
    assert query(place.url, until) == [(1,)]


def test_a_silent_stream_says_so_with_a_comment_and_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEAT_S", 0.1)
    with served(place, arrives_s=0.2) as site:  # a client that has sent its request may be silent for longer
        site.sign_in()
        run, _ = started(site)
        with listening(site, run.id) as events:
            assert events.next()[0] == "run"
            for number in (1, 2):
                assert events.next() == ("beat", "")  # the clock of the store stands, so nothing ages
                assert events.comments == number


def test_more_streams_than_a_server_has_are_refused_for_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_OPEN", 1)
    run, plans = started(site)
    with listening(site, run.id) as events:
        events.next()
        refused = site.get(f"/runs/{run.id}/events")
        assert (refused.status, refused.headers["retry-after"]) == (503, "30")
        finished(site, run, plans)
        while events.next()[0] != "over":
            pass
    with listening(site, run.id) as events:  # who has left makes room
        assert events.next()[0] == "over"


def test_a_stream_ends_when_its_session_does(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WATCH_AGAIN_S", 0.0)
    run, _ = started(site)
    token = site.token()
    with listening(site, run.id) as events:
        events.next()
        assert site.ask("POST", "/logout", {"form_token": token}, Origin=site.origin).status == 303
        events.answer.read()  # to its end
    assert (site.get(f"/runs/{run.id}/events").location, site.get(f"/runs/{run.id}").location) == ("/login", "/login")


def test_why_a_run_failed_comes_first_and_the_rest_is_there(site: Site) -> None:
    run, plans = started(site, "a", "b", event={"order": 12}, variables={"region": "eu"})
    finished(site, run, plans, failed="b")
    text = site.get(f"/runs/{run.id}").text
    places = [
        text.index(part)
        for part in (
            "<b>ValueError</b>, stream",
            "Mend the cause, then retry.",
            "<dt>Read</dt>",
            'id="streams"',
            'id="blocks"',
            "Callbacks of the pipeline",
            "column &#39;c&#39; added",
            "a line of",
            "How it was ordered",
            "Variables: region ",
            "&#34;order&#34;: 12",
            "table_b",
        )
    ]
    assert places[:-1] == sorted(places[:-1])
    assert "live.js" not in text
    assert site.get(f"/runs/{run.id}/log").headers["content-type"] == "text/plain; charset=utf-8"


def test_cancel_retry_and_deliver_again_are_orders_of_the_page(site: Site, place: Place) -> None:
    run, plans = started(site)
    assert "Cancel" in site.get(f"/runs/{run.id}").text
    done = site.post(f"/runs/{run.id}/cancel")
    assert (done.status, done.location) == (303, f"/runs/{run.id}")
    assert site.store.cancel_requested(run.id)
    assert "Cancelling" in site.get(f"/runs/{run.id}").text
    finished(site, run, plans, failed="a")
    assert site.post(f"/runs/{run.id}/retry").status == 303
    assert "A retry is ordered" in site.get(f"/runs/{run.id}").text
    key = query(place.url, "SELECT idempotency_key FROM _syncblocks_delivery LIMIT 1")[0][0]
    assert site.post(f"/runs/{run.id}/deliveries/{key}/again").status == 409  # it is done
    query(place.url, f"UPDATE _syncblocks_delivery SET state = 'dead' WHERE idempotency_key = '{key}'")
    assert "Deliver again" in site.get(f"/runs/{run.id}").text
    assert site.post(f"/runs/{run.id}/deliveries/{key}/again").status == 303
    assert query(place.url, "SELECT who, what FROM _syncblocks_action ORDER BY id") == [
        ("page", "cancel"),
        ("page", "retry"),
        ("page", "deliver"),
    ]
    for path in ("cancel", "retry", f"deliveries/{key}/again"):
        assert site.ask("POST", f"/runs/{run.id}/{path}", {}, Origin=site.origin).status == 403
        assert site.get(f"/runs/{run.id}/{path}").status == 405


def test_a_run_that_is_gone_and_one_that_never_was_are_told_apart(site: Site) -> None:
    for _ in range(2):
        run, plans = started(site)
        finished(site, run, plans)
    site.store.remove_runs(site.store.past_runs("crm", keep=None, keep_runs=1).runs)
    gone, never, large = (site.get(f"/runs/{number}") for number in (run.id - 1, run.id + 1, 10**30))
    assert (gone.status, never.status, large.status) == (404, 404, 404)
    assert f"Run {run.id - 1} is not kept any more" in gone.text
    assert f"There is no run {run.id + 1} yet" in never.text
    assert "has no attempt 2" in site.get(f"/runs/{run.id}?attempt=2").text
    assert site.get(f"/runs/{run.id}/events?attempt=2").status == 404


def test_each_attempt_has_its_page(site: Site) -> None:
    run, plans = started(site)
    finished(site, run, plans, failed="b")
    again = site.store.begin_retry(run.id, plan=attempt_plan(plans[1:]))
    text = site.get(f"/runs/{run.id}").text
    assert "Run 1, attempt 2" in text
    assert f'<a href="/runs/{run.id}?attempt=1">attempt 1</a>' in text
    former = site.get(f"/runs/{run.id}?attempt=1").text
    assert "Run 1, attempt 1" in former
    assert "Attempt 2 came later." in former
    assert "live.js" not in former
    site.store.claim(run.id, ["b"])
    finished(site, again, plans[1:])
    assert "Attempt 2 came later." in site.get(f"/runs/{run.id}?attempt=1").text


def test_a_run_of_many_streams_is_shown_in_part(site: Site) -> None:
    names = [f"s{number:03}" for number in range(130)]
    run, plans = started(site, *names)
    site.store.close_stream(run.id, outcome(plans[120], failed_block="load"))
    text = site.get(f"/runs/{run.id}").text
    assert text.count('<th scope="row"><a href="/pipelines/crm/streams/') == 100 + 100  # of streams, and of the plan
    assert text.index(">s120<") < text.index(">s000<")
    assert "All of 130 streams" in text
    whole = site.get(f"/runs/{run.id}?all").text
    assert whole.count('<th scope="row"><a href="/pipelines/crm/streams/') == 130 + 130


def test_a_run_whose_process_is_dead_says_what_comes(site: Site, place: Place) -> None:
    run, _ = started(site)
    place.dead.add(site.store.owner.pid)
    text = site.get(f"/runs/{run.id}").text
    assert "word-dead" in text
    assert "Its process is gone." in text


def test_a_run_without_a_log_names_the_output_of_its_process(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "<b>ticks.log"
    with served(place, output_of=lambda tick: output) as site:
        site.sign_in()
        tick = site.store.order_tick("crm", "key", kind="api", trigger="0", causes=())
        site.store.claim_tick(tick.id)
        run, _ = started(site, tick=tick.id)
        output.touch()
        assert "The log comes when the attempt has ended." in site.get(f"/runs/{run.id}").text
        place.dead.add(site.store.owner.pid)
        assert "/&lt;b&gt;ticks.log</code>" in site.get(f"/runs/{run.id}").text
        output.unlink()
        assert "ticks.log" not in site.get(f"/runs/{run.id}").text


def test_half_a_character_in_an_event_breaks_no_page(site: Site) -> None:
    run, plans = started(site, "a", event={"name": "\ud800"}, variables={"name": "\ud800"})
    finished(site, run, plans)
    for path in (f"/runs/{run.id}", f"/runs/{run.id}/log", "/pipelines/crm"):
        assert site.get(path).status == 200, path
