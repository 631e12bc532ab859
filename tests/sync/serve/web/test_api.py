"""The API: orders by tokens with scopes, each once, and the documents of what there is."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.errors import StoreUnreachable
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.serve.orders import MOST_WAITING
from syncblocks.sync.serve.web.order_body import MOST_BYTES
from syncblocks.sync.store import Store
from syncblocks.sync.store.ticks import TickOptions
from tests.sync.serve.serve_helpers import Place, begin, end
from tests.sync.serve.web.web_helpers import Site, served
from tests.sync.store.store_helpers import STORES, attempt_plan, outcome, query, store_url_of, stream_plan


class Client:
    """A program with a token."""

    def __init__(self, site: Site, *scopes: str) -> None:
        self.site = site
        self.store = site.store
        self.name = f"t{len(site.store.access.tokens())}"
        self.secret = site.store.access.make_token(self.name, scopes)

    def call(
        self, method: str, path: str, document: Any = None, *, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Send a request; return status, document and headers of the answer."""
        if body is None and document is not None:
            body = json.dumps(document).encode()
        sent = {"Host": self.site.headers["Host"], "Authorization": f"Bearer {self.secret}"}
        sent |= {"Content-Type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=30)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(text) if text.startswith("{") else {}, found
        finally:
            connection.close()

    def get(self, path: str, status: int = 200) -> dict[str, Any]:
        return self.asked("GET", path, status)

    def post(self, path: str, document: Any = None, status: int = 202, **headers: str) -> dict[str, Any]:
        return self.asked("POST", path, status, document, **headers)

    def asked(self, method: str, path: str, status: int, document: Any = None, **headers: str) -> dict[str, Any]:
        found, answer, _ = self.call(method, path, document, **headers)
        assert found == status, answer
        return answer


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    found = Place(tmp_path, store_url_of(request, tmp_path))
    found.write()
    found.write("a/b & c", cron=None, file="plain.yaml")
    return found


@pytest.fixture
def site(place: Place) -> Iterator[Site]:
    with served(place) as found:
        yield found


@pytest.fixture
def client(site: Site) -> Client:
    return Client(site, "read", "run:*", "operate")


def fail(store: Store, run: int, meanwhile: Callable[[], object] = str) -> None:
    """End a run whose only stream fails."""
    plan = stream_plan("a")
    store.begin_attempt(run, attempt_plan([plan], parents=("stream",)))
    store.claim(run, ["a"])
    meanwhile()
    store.close_stream(run, outcome(plan, "failure"))
    store.finish_run(run)


def test_an_order_becomes_a_tick_with_its_options(client: Client) -> None:
    order = {
        "event": {"from": "ci", "list": [1, None]},
        "variables": {"day": "2024-01-31"},
        "streams": ["a*"],
        "full_refresh": True,
        "execution_date": "2024-01-31",
        "interval_start": "2024-01-30T00:00:00Z",
        "interval_end": "2024-01-31T02:00:00+02:00",
    }
    status, answer, headers = client.call("POST", "/api/pipelines/crm/runs", order)
    assert (status, answer["tick"]) == (202, headers["location"])
    assert headers["location"] == f"{client.site.origin}/api/ticks/1"
    assert (answer["state"], answer["run"], "variables" in answer) == ("waiting", None, False)
    day = datetime(2024, 1, 31, tzinfo=UTC)
    assert client.store.tick(1).options == TickOptions(
        event=order["event"],  # type: ignore[arg-type]
        variables={"day": "2024-01-31"},
        streams=("a*",),
        full_refresh=True,
        execution_date=day,
        interval=(day - timedelta(days=1), day),
    )
    assert client.get("/api/ticks/1")["ordered_by"] == f"token {client.name}"
    run = begin(client.store, 1)
    end(client.store, run)
    tick = client.get("/api/ticks/1")
    assert (tick["run"], tick["run_status"]) == (f"{client.site.origin}/api/runs/{run}", "success")
    client.post("/api/pipelines/a%2Fb%20%26%20c/runs")
    assert client.store.tick(2).pipeline == "a/b & c"


def test_an_order_that_comes_again_is_one(client: Client) -> None:
    first = client.post("/api/pipelines/crm/runs", {"event": {"a": 1, "b": 2}}, Idempotency_Key="k")
    assert client.post("/api/pipelines/crm/runs", {"event": {"b": 2, "a": 1}}, Idempotency_Key="k") == first
    assert "another order" in client.post("/api/pipelines/crm/runs", {}, 409, Idempotency_Key="k")["error"]
    assert Client(client.site, "run:crm").post("/api/pipelines/crm/runs", {}, Idempotency_Key="k")["tick_id"] == 2
    client.store.access.revoke_token(client.name)
    client.site.place.clock.move(1)
    client.secret = client.store.access.make_token(client.name, ["run:crm"])
    assert client.post("/api/pipelines/crm/runs", {}, Idempotency_Key="k")["tick_id"] == 3
    for wrong in ("a b", "k" * 201, "\u00fc"):
        answer = client.post("/api/pipelines/crm/runs", {}, 400, Idempotency_Key=wrong)
        assert "at most 200 ASCII characters" in answer["error"]
    assert "is empty" in client.post("/api/pipelines/crm/runs", {}, 400, Idempotency_Key="")["error"]


@pytest.mark.parametrize(
    ("body", "key"),
    [('{"event": {}, "event": {"a": 1}}', "event"), ('{"variables": {"day": 1, "x": [{"y": 1, "y": 1}]}}', "y")],
)
def test_an_order_with_a_key_twice_is_refused(client: Client, body: str, key: str) -> None:
    status, answer, _ = client.call("POST", "/api/pipelines/crm/runs", body=body.encode())
    assert status == 400
    assert f"the key {key!r} twice" in answer["error"]


def test_more_than_a_hundred_orders_do_not_wait(client: Client) -> None:
    for number in range(MOST_WAITING):
        client.store.order_tick("crm", str(number), trigger="", causes=(), kind="api")
    assert "wait" in client.post("/api/pipelines/crm/runs", {}, 429)["error"]


WRONG = {
    "an unknown key": (b'{"evnt": {}}', "did you mean 'event'?"),
    "a list": (b"[]", "must be a JSON object"),
    "no JSON": (b"{", "no JSON"),
    "no text": (b'{"event": "\xff"}', "no JSON"),
    "a number that is none": (b'{"event": {"a": NaN}}', "no JSON"),
    "a number that is too large": (b'{"event": {"a": 1e400}}', "no JSON"),
    "too deep": (b'{"event":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON"),
    "many levels": (b'{"event":' + b'{"a":' * 64 + b"1" + b"}" * 65, "more than 64 levels"),
    "an endless number": (b'{"event": {"a": ' + b"9" * 10_000 + b"}}", "no JSON"),
    "an event that is a text": (b'{"event": "x"}', "'event' must be an object"),
    "variables in a list": (b'{"variables": [1]}', "'variables' must be an object"),
    "a flag that is a text": (b'{"full_refresh": "yes"}', "true or false"),
    "no stream": (b'{"streams": []}', "list of names"),
    "a stream that is a number": (b'{"streams": [1]}', "list of names"),
    "an open glob": (b'{"streams": ["[a"]}', "never closed"),
    "a date that is none": (b'{"execution_date": "today"}', "must be a time"),
    "a date before all": (b'{"execution_date": "0001-01-01T00:00:00+14:00"}', "must be a time"),
    "a date that is a number": (b'{"execution_date": 5}', "must be a time"),
    "half an interval": (b'{"interval_start": "2024-01-01"}', "give both"),
    "an interval that ends first": (b'{"interval_start": "2024-01-02", "interval_end": "2024-01-01"}', "before"),
}


def test_a_wrong_order_is_refused_and_writes_nothing(client: Client, place: Place) -> None:
    for what, (body, message) in WRONG.items():
        status, answer, _ = client.call("POST", "/api/pipelines/crm/runs", body=body)
        assert (status, message in answer["error"]) == (400, True), (what, answer)
    status, answer, _ = client.call("POST", "/api/pipelines/crm/runs", body=b"{}", Content_Type="text/plain")
    assert status == 415, answer
    exact = b'{"event": {"a": "' + b"x" * (MOST_BYTES - 20) + b'"}}'
    assert client.call("POST", "/api/pipelines/crm/runs", body=exact)[0] == 202
    assert client.call("POST", "/api/pipelines/crm/runs", body=exact + b" ")[0] == 413
    assert "did you mean 'crm'?" in client.post("/api/pipelines/crn/runs", {}, 404)["error"]
    assert query(place.url, "SELECT count(*) FROM _syncblocks_tick") == [(1,)]


def test_scopes_decide_what_a_token_may(client: Client) -> None:
    """Of each route: which of four tokens may use it."""
    client.post("/api/pipelines/crm/runs")
    run = begin(client.store, 1)
    end(client.store, run)
    reads, runs, other, operates = (Client(client.site, s) for s in ("read", "run:c*", "run:x", "operate"))
    for path in ("pipelines", "pipelines/crm", "pipelines/crm/runs", "runs/1", "runs/1/deliveries", "schedules"):
        for each in (reads, runs, other, operates):
            each.get(f"/api/{path}", 200 if each is reads else 403)
    for each in (reads, runs, other, operates):
        each.post("/api/pipelines/crm/runs", {}, 202 if each is runs else 403)
        each.post("/api/pipelines/crm/runs", {"unknown": 1}, 400 if each is runs else 403)
        for path in ("runs/1/cancel", "runs/1/retry", "schedules/crm/resume"):
            each.post(f"/api/{path}", {}, 409 if each is operates else 403)
        each.post(f"/api/pipelines/crm/deliveries/{32 * '0'}/retry", {}, 404 if each is operates else 403)
    assert runs.get("/api/ticks/2")["tick_id"] == 2
    runs.get("/api/ticks/1", 403)
    runs.get("/api/ticks/77", 403)
    reads.get("/api/ticks/77", 404)
    _, _, headers = operates.call("GET", "/api/runs/1")
    assert headers["www-authenticate"] == 'Bearer realm="syncblocks", error="insufficient_scope"'


def test_without_a_token_that_lasts_nothing_is_told(client: Client, place: Place) -> None:
    secret = client.secret
    for wrong in ("", "Bearer", "Bearer ", f"Basic {secret}", secret, f"Bearer {secret}x", f"Bearer {'x' * 9000}"):
        status, answer, headers = client.call("GET", "/api/pipelines", Authorization=wrong)
        assert (status, list(answer)) == (401, ["error"])
        assert headers["www-authenticate"].startswith("Bearer realm=")
    assert client.call("GET", "/api/pipelines", Authorization=f"bearer  {secret}")[0] == 200
    for path in (f"/api/pipelines?access_token={secret}", f"/api/pipelines?token={secret}"):
        assert client.call("GET", path, Authorization="", Cookie=f"token={secret}")[0] == 401
    client.site.sign_in()
    assert client.site.get("/api/pipelines").status == 401
    query(place.url, "UPDATE _syncblocks_token SET expires_at = '2020-01-01 00:00:00.000000'")
    assert client.call("GET", "/api/pipelines")[0] == 401
    revoked = Client(client.site, "read")
    client.store.access.revoke_token(revoked.name)
    assert revoked.call("GET", "/api/pipelines")[0] == 401


def test_runs_are_paged_and_shown_whole(client: Client) -> None:
    for _ in range(3):
        end(client.store, begin(client.store, client.post("/api/pipelines/crm/runs")["tick_id"]))
    page = client.get("/api/pipelines/crm/runs?limit=2")
    assert ([each["run_id"] for each in page["runs"]], page["next"]) == ([3, 2], 2)
    page = client.get("/api/pipelines/crm/runs?limit=2&before=2")
    assert ([each["run_id"] for each in page["runs"]], page["next"]) == ([1], None)
    run = client.get("/api/runs/3")
    assert (run["type"], run["status"], run["owner_state"], run["deliveries"]) == ("run", "success", None, [])
    assert client.get("/api/runs/3/deliveries") == {"run_id": 3, "deliveries": []}
    assert client.get("/api/pipelines/a%2Fb%20%26%20c/runs")["runs"] == []
    for parameters in ("limit=0", "limit=1001", "limit=x", "limit=-1", "before=", "before=1e3", "befor=2", "limit="):
        client.get(f"/api/pipelines/crm/runs?{parameters}", 400)


NUMBERS = ("0", "-1", "1.0", "abc", "9" * 9, "9" * 10, "9" * 30, "%00", "1%00", "%F0%9F%98%80", "%D9%A1", "1e9", "%201")


@pytest.mark.parametrize("kind", ["runs", "ticks"])
def test_a_number_that_is_none_is_not_found(client: Client, kind: str) -> None:
    for number in NUMBERS:
        status, answer, _ = client.call("GET", f"/api/{kind}/{number}")
        assert status == 404, (number, answer)


def test_a_name_that_is_none_is_not_found(client: Client) -> None:
    for name in ("%00", "crm%00", "..%2F..%2Fetc", "%F0%9F%98%80", "x" * 5000, "crm%0A", "%FF", "crm%2F", "%25"):
        client.get(f"/api/pipelines/{name}", 404)
        client.get(f"/api/pipelines/{name}/runs", 404)
        client.post(f"/api/pipelines/{name}/runs", {}, 404)
        client.post(f"/api/schedules/{name}/pause", {}, 404)
    for key in ("%00", "x", "'", "0" * 31, "0" * 33, "g" * 32):
        client.post(f"/api/pipelines/crm/deliveries/{key}/retry", {}, 404)


def test_a_run_is_cancelled_retried_and_its_callback_delivered_again(client: Client, place: Place) -> None:
    client.post("/api/pipelines/crm/runs")
    run = begin(client.store, 1)
    client.post(f"/api/runs/{run}/retry", {}, 409)
    fail(client.store, run, lambda: client.post(f"/api/runs/{run}/cancel"))
    assert client.store.run(run).cancel_requested
    client.post(f"/api/runs/{run}/cancel", {"now": True}, 400)
    client.post(f"/api/runs/{run}/cancel", {}, 409)
    tick = client.post(f"/api/runs/{run}/retry")
    assert (tick["kind"], tick["retries"]) == ("retry", run)
    assert client.post(f"/api/runs/{run}/retry") == tick
    (delivery,) = client.get(f"/api/runs/{run}/deliveries")["deliveries"]
    client.post(f"/api/pipelines/crm/deliveries/{delivery['key']}/retry", {}, 409)
    query(place.url, "UPDATE _syncblocks_delivery SET state = 'dead', is_open = FALSE")
    client.post(f"/api/pipelines/crm/deliveries/{delivery['key']}/retry")
    assert client.get(f"/api/runs/{run}/deliveries")["deliveries"][0]["state"] == "ready"
    client.post("/api/runs/77/cancel", {}, 404)
    whats = [action.what for action in client.store.actions.of_pipeline("crm")]
    assert whats == ["deliver", "retry", "cancel", "run"]


def test_a_schedule_is_paused_and_resumed(client: Client) -> None:
    client.store.schedules.see({"crm": ("/crm.yaml", Schedule(cron="* * * * *"))})
    (schedule,) = client.get("/api/schedules")["schedules"]
    assert (schedule["pipeline"], schedule["is_paused"], len(schedule["next"])) == ("crm", False, 5)
    until = "2100-01-01T00:01:00+00:00"  # the time at its end is not skipped
    paused = client.post("/api/schedules/crm/pause", {"until": until, "reason": "db moves"}, 200)
    assert (paused["is_paused"], paused["paused_until"], paused["pause_reason"]) == (True, until, "db moves")
    assert paused["next"][0] == "2100-01-01T00:01:00+00:00"
    assert client.get("/api/pipelines/crm")["status"] == "paused"
    assert client.post("/api/schedules/crm/resume", {}, 200)["is_paused"] is False
    client.post("/api/schedules/crm/resume", {}, 409)
    client.post("/api/schedules/crm/pause", {"until": "2020-01-01"}, 400)
    client.post("/api/schedules/crm/pause", {"until": 5}, 400)
    client.post("/api/schedules/crm/pause", {"reason": "x" * 1001}, 400)
    for reason in ("\0", "\ud800", "two\nlines"):
        client.post("/api/schedules/crm/pause", {"reason": reason}, 400)
    client.post("/api/schedules/crm/pause", {"until": "9999-12-31T23:59:59Z"}, 200)
    assert [client.get("/api/schedules")["schedules"][0]["next"], client.get("/api/pipelines/crm")["next_run"]] == [
        [],
        None,
    ]
    client.post("/api/schedules/a%2Fb%20%26%20c/pause", {}, 409)
    assert client.post("/api/schedules/crm/pause", {}, 200)["next"] == []


def test_pipelines_stand_as_status_says(client: Client, place: Place) -> None:
    (place.folder / "broken.yaml").write_text("pipeline: x\nsource: {connector: csv}\ndestination: {}\nschedule: 5\n")
    client.site.read_files()
    found = client.get("/api/pipelines")
    assert {each["pipeline"]: each["status"] for each in found["pipelines"]} == {
        "broken.yaml": "broken",
        "crm": "never ran",
        "a/b & c": "never ran",
    }
    assert client.get("/api/pipelines/a%2Fb%20%26%20c")["file"] == str(place.folder / "plain.yaml")
    client.get("/api/pipelines?limit=1", 400)


def test_metrics_have_the_labels_pipeline_stream_and_status(client: Client, place: Place) -> None:
    place.write('odd "name" \\', cron=None, file="odd.yaml")
    client.site.read_files()
    client.post("/api/pipelines/crm/runs")
    run = begin(client.store, 1)
    plan = stream_plan("a")
    client.store.begin_attempt(run, attempt_plan([plan], parents=("stream",)))
    client.store.claim(run, ["a"])
    client.store.close_stream(run, outcome(plan))
    client.store.finish_run(run)
    client.post("/api/pipelines/crm/runs")
    answer = client.site.ask("GET", "/metrics", Authorization=f"Bearer {client.secret}")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = answer.text.splitlines()
    for line in (
        "# TYPE syncblocks_up gauge",
        "syncblocks_up 1",
        "syncblocks_broken_files 0",
        'syncblocks_late{pipeline="crm"} 0',
        'syncblocks_running{pipeline="crm"} 0',
        'syncblocks_recent_runs{pipeline="crm",status="success"} 1',
        'syncblocks_ticks_waiting{pipeline="crm"} 1',
        'syncblocks_deliveries_due{pipeline="crm"} 1',
        'syncblocks_deliveries_dead{pipeline="crm"} 0',
        'syncblocks_last_success_rows{pipeline="crm",stream="a"} 3',
        'syncblocks_ticks_waiting{pipeline="odd \\"name\\" \\\\"} 0',
    ):
        assert line in lines, answer.text
    assert 'syncblocks_last_success_age_seconds{pipeline="crm"}' in answer.text
    assert client.site.get("/metrics").status == 401
    operates = Client(client.site, "operate")
    assert client.site.ask("GET", "/metrics", Authorization=f"Bearer {operates.secret}").status == 403


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnreachable("sqlite: disk full"), 503), (KeyError("the-secret"), 500)]
)
def test_a_fault_shows_nothing_of_itself(
    client: Client, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_args: object, **_more: object) -> None:
        raise error

    client.store.runs = failing  # type: ignore[assignment]
    answer = client.get("/api/pipelines/crm/runs", status)
    assert not {"disk", "the-secret"} & set(str(answer).split())
    assert str(error) in caplog.text
    assert ("KeyError" in answer["error"]) == (status == 500)


def test_what_has_no_route_is_json_too(client: Client) -> None:
    status, answer, headers = client.call("DELETE", "/api/pipelines/crm/runs")
    assert (status, list(answer), set(headers["allow"].split(", "))) == (405, ["error"], {"GET", "HEAD", "POST"})
    for path in ("/api/", "/api/x", "/api/pipelines/", "/api/runs"):
        assert client.call("GET", path)[0] == 404, path
    assert client.call("HEAD", "/api/pipelines")[:2] == (200, {})
