"""What pages show, how they escape it, and what their buttons do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.sync.schedules import Schedule
from syncblocks.sync.serve.web.charts import Point, bar_chart
from syncblocks.sync.serve.web.paths import path_of
from syncblocks.sync.store.alerts import Finding, key_of
from tests.sync.serve.serve_helpers import Place
from tests.sync.serve.web.demo import HOSTILE, LONG, demo
from tests.sync.serve.web.large_store import fill, measured
from tests.sync.serve.web.web_helpers import Site, served
from tests.sync.store.store_helpers import STORES

HOSTILE_PATH = f"/pipelines/{path_of(HOSTILE)}"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that no test changes."""
    with served(demo(tmp_path_factory.mktemp("demo"))) as site:
        site.sign_in()
        yield site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = Place(tmp_path)
    place.write("crm", "0 6 * * *", timezone="Europe/Berlin")
    place.write("plain", cron=None)
    with served(place) as found:
        found.sign_in()
        yield found


def texts(site: Site, path: str) -> str:
    answer = site.get(path)
    assert answer.status == 200, answer
    return answer.text


def test_the_worst_pipeline_is_first_and_each_has_its_word(shown: Site) -> None:
    page = texts(shown, "/")
    words = ("broken", "late", "failed", "paused", "running", "never ran", "no schedule", "on time")
    places = [page.index(f">{count} {word}<") for word, count in zip(words, (1, 1, 1, 1, 1, 1, 1, 2), strict=True)]
    assert places == sorted(places)
    names = ("marketing.yaml", ">crm<", ">billing<", ">inventory<", ">events<", ">weather<", ">reports<", ">orders<")
    assert [page.index(name) for name in names] == sorted(page.index(name) for name in names)
    assert "port 5432 failed: Connection refused<" in page


def test_pipelines_are_found_by_text_tag_and_status(shown: Site) -> None:
    def named(query: str) -> set[str]:
        page = texts(shown, f"/?{query}")
        return {
            name
            for name in ("crm", "orders", "inventory", "reports", "billing")
            if f'class="name" href="/pipelines/{name}"' in page
        }

    assert named("q=ORD") == {"orders"}
    assert named("q=data-team") == {"orders"}
    assert named("tag=finance") == {"reports", "billing"}
    assert named("tag=shop&q=inv") == {"inventory"}
    assert named("status=late") == {"crm"}
    assert named("q=sqlite&page=99999999999999") == {"crm", "orders", "inventory", "reports", "billing"}
    assert "No pipeline matches" in texts(shown, "/?q=nothing")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/?tag={path_of(HOSTILE)}&q={path_of(HOSTILE)}",
        "/schedules",
        f"/schedules?q={path_of(HOSTILE)}",
        f"/deliveries?pipeline={path_of(HOSTILE)}",
        HOSTILE_PATH,
        f"{HOSTILE_PATH}/streams/{path_of(HOSTILE)}",
        f"{HOSTILE_PATH}/streams/{path_of(LONG)}",
        f"{HOSTILE_PATH}/streams/{path_of(HOSTILE)}/anew",
        f"/login?code={path_of(HOSTILE)}",
    ],
)
def test_hostile_names_are_text(shown: Site, path: str) -> None:
    page = texts(shown, path) if not path.startswith("/login") else shown.get(path, Cookie=None).text
    assert "<script" not in page
    assert "style=" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page or "alert%281%29" in page or LONG[:50] in page


def test_what_is_not_there_is_no_page(shown: Site) -> None:
    for path in (
        "/pipelines/none",
        "/pipelines/crm/streams/none",
        "/pipelines/none/streams/a/anew",
        "/pipelines/crm/x",
    ):
        assert shown.get(path).status == 404, path
    for path in ("/nosuch", "/pipelines/crm/", "/runs/x"):
        answer = shown.get(path)
        assert (answer.status, 'href="/"' in answer.text) == (404, True), path
    for path in ("?status=x", "?kind=x", "?since=yesterday", "?until=0001-01-01T00:00"):
        assert shown.get(f"/pipelines/crm{path}").status == 400, path
    assert "&lt;script" in shown.get(f"/pipelines/{path_of('<script>none')}").text


def test_the_first_error_of_a_pipeline_stands_before_any_table(shown: Site) -> None:
    page = texts(shown, "/pipelines/crm")
    assert page.index("port 5432 failed") < page.index("<dl") < page.index("<table")
    assert '<a href="/pipelines/crm/streams/accounts">accounts</a>, block export' in page
    assert 'href="https://wiki.example/crm" rel="noreferrer"' in page


def test_a_timeline_has_what_lies_between_the_runs(shown: Site) -> None:
    orders = texts(shown, "/pipelines/orders")
    assert "column &#39;discount&#39; added (decimal)" in orders
    assert "<b>page</b>" in texts(shown, "/pipelines/inventory")
    crm = texts(shown, "/pipelines/crm")
    assert "17 times from 2026-01-01 05:00 on" in crm
    failures = texts(shown, "/pipelines/orders?status=failure")
    assert failures.count('<li class="of-run">') == 1  # both failed with the same error
    assert "in 2 runs in a row" in failures
    assert "discount" not in failures
    night = texts(shown, "/pipelines/orders?since=2026-01-02T00:00&until=2026-01-02T01:00")
    assert night.count('<li class="of-run">') == 4


def test_why_a_pipeline_is_late_and_who_was_told_is_seen(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("crm", "0 6 * * *", keys={"expect": {"every": "1h"}})
    with served(place, alert_variable="ALERTS") as site:
        site.sign_in()
        texts(site, "/")  # from now on the expectation counts
        tick = site.store.order_tick("crm", "k", trigger="", causes=(), kind="schedule")
        site.store.claim_tick(tick.id)
        site.store.give_back_tick(tick.id, f"{tmp_path}/crm.yaml:4: no such folder: {'x' * 100}")
        place.clock.move(7200)
        for path in ("/", "/pipelines/crm"):
            assert f"crm.yaml:4: no such folder: {'x' * 100}" in texts(site, path), path
        late = Finding(pipeline="crm", kind="late", what="no success")
        alerts = site.store.alerts().note({"crm": [late]}, {"crm": "crm.yaml"}, {}, urls=2)
        assert "notified nobody" in texts(site, "/pipelines/crm")
        site.store.alerts().told(alerts, {key_of(alerts[0]): [1]}, 2)
        assert "notified address 2 of <code>$ALERTS</code>" in texts(site, "/pipelines/crm")


def test_a_broken_file_has_a_page_that_shows_who_was_notified(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "crm.yaml").write_text("source: {connector: csv\ndestination: no\n")
    with served(place) as site:
        site.sign_in()
        assert 'href="/pipelines/crm.yaml"' in texts(site, "/")
        finding = Finding(pipeline="crm.yaml", kind="broken", what="broken: not valid YAML")
        alerts = site.store.alerts().note({"crm.yaml": [finding]}, {"crm.yaml": "crm.yaml"}, {}, urls=3)
        site.store.alerts().told(alerts, {key_of(alerts[0]): [0, 2]}, 3)
        page = texts(site, "/pipelines/crm.yaml")
        assert "broken: crm.yaml:1: not valid YAML" in page
        assert "notified addresses 1, 3 of" in page
        assert "Run now" not in page
        (tmp_path / "crm.yaml").unlink()
        place.write("crm", "0 6 * * *")
        site.read_files()
        place.clock.move(60)
        assert site.get("/pipelines/crm.yaml").status == 404


def test_the_first_page_shows_owners(shown: Site) -> None:
    page = texts(shown, "/")
    assert "owner data-team" in page
    assert "owner &lt;script&gt;" in page


def test_identical_failures_in_a_row_are_one_entry_with_their_number(shown: Site) -> None:
    page = texts(shown, "/pipelines/crm")
    assert page.count('<span class="word word-failure">failure</span> <a href="/runs/') == 1
    assert "The same error in 3 runs in a row, since 2026-01-02 02:00" in page
    runs = [f'<a href="/runs/{number}">run {number}</a>' for number in (47, 46, 45)]
    assert [page.index(run) for run in runs] == sorted(page.index(run) for run in runs)
    stream = texts(shown, "/pipelines/crm/streams/accounts")
    assert stream.count("in 3 runs in a row") == 1


@pytest.mark.parametrize("count", [1, 2, 7, 30, 60])
def test_the_first_and_the_last_bar_are_at_the_ends_that_have_labels(count: int) -> None:
    chart = bar_chart([Point(1.0, "success", "") for _ in range(count)])
    assert (chart.bars[0].x, len(chart.bars)) == (0, count)
    if count > 1:
        assert chart.bars[-1].x + chart.bars[-1].width == chart.width


def test_a_stream_shows_its_figures_over_time(shown: Site) -> None:
    page = texts(shown, "/pipelines/orders/streams/orders")
    assert "from 0 to " in page
    assert page.count("<svg") == 4  # rows, duration, age of the bookmark, rejected
    assert page.count('<rect class="is-failure"') == 8
    assert "2026-01-02T02:53:05" in page
    hostile = texts(shown, f"{HOSTILE_PATH}/streams/{path_of(LONG)}")
    assert hostile.count("<svg") == 3


def test_run_now_pause_and_resume_are_done_once_and_noted(site: Site) -> None:
    assert site.post("/pipelines/crm/run").location == "/pipelines/crm"
    (tick,) = site.store.startable_ticks("crm", "api")
    assert tick.ordered_by == "page"
    answer = site.post("/pipelines/crm/pause", until="2026-01-03T07:30", reason=HOSTILE)
    assert (answer.status, answer.location) == (303, "/pipelines/crm")
    (known,) = site.store.schedules.known()
    assert known.pause_reason == HOSTILE
    assert known.paused_until is not None
    assert f"{known.paused_until:%Y-%m-%dT%H:%MZ}" == "2026-01-03T06:30Z"  # 07:30 in Berlin
    page = texts(site, "/pipelines/crm")
    assert ("Resume" in page, "2026-01-03 07:30:00" in page, "<script" in page) == (True, True, False)
    assert "2026-01-02 06:00" not in texts(site, "/schedules")
    assert site.post("/pipelines/crm/resume").status == 303
    done = [each.what for each in reversed(site.store.actions.of_pipeline("crm"))]
    assert done == ["run", "pause", "resume"]


def test_orders_that_cannot_be_carried_out_say_why(site: Site) -> None:
    for path, form, status, what in (
        ("/pipelines/none/run", {}, 404, "no pipeline file"),
        ("/pipelines/crm/resume", {}, 409, "is not paused"),
        ("/pipelines/plain/pause", {}, 409, "has no schedule"),
        ("/pipelines/crm/pause", {"until": "2020-01-01T00:00"}, 400, "has passed"),
        ("/pipelines/crm/pause", {"until": "soon"}, 400, "is no time"),
        ("/pipelines/crm/pause", {"reason": "x" * 501}, 400, "longer than 500"),
        ("/deliveries/again", {"pipeline": "crm", "key": "none"}, 404, "has no delivery"),
        ("/deliveries/again", {}, 400, "names no delivery"),
    ):
        answer = site.post(path, **form)
        assert (answer.status, what in answer.text) == (status, True), (path, answer)


def test_read_anew_says_what_it_replaces_and_orders_one_stream(tmp_path: Path) -> None:
    with served(demo(tmp_path)) as site:
        site.sign_in()
        path = f"{HOSTILE_PATH}/streams/{path_of(HOSTILE)}/anew"
        page = texts(site, path)
        assert ("table_&lt;script&gt;" in page, "updated_at=2026-01-01T16:57:05" in page) == (True, True)
        assert site.store.startable_ticks(HOSTILE, "api") == ()
        assert site.post(path).location == HOSTILE_PATH
        (tick,) = site.store.startable_ticks(HOSTILE, "api")
        assert (tick.options.full_refresh, len(tick.options.streams or ())) == (True, 1)


def test_a_dead_callback_is_delivered_again(tmp_path: Path) -> None:
    with served(demo(tmp_path)) as site:
        site.sign_in()
        dead = site.store.views.deliveries("dead")
        assert [each.pipeline for each in dead] == ["billing"]
        form = {"pipeline": "billing", "key": dead[0].idempotency_key, "filter": "billing"}
        assert site.post("/deliveries/again", **form).location == "/deliveries?pipeline=billing"
        assert site.store.views.deliveries("dead") == ()
        assert "No callback is dead" in texts(site, "/deliveries?pipeline=billing")


def test_a_pipeline_without_a_file_still_shows_its_runs(tmp_path: Path) -> None:
    place = demo(tmp_path)
    (tmp_path / "orders.yaml").unlink()
    with served(place) as site:
        site.sign_in()
        page = texts(site, "/pipelines/orders")
        assert ("its file orders.yaml is gone" in page, "run 34" in page, "Run now" in page) == (True, True, False)


def test_a_long_timeline_is_continued_and_misses_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("crm", "0 6 * * *")
    schedule, file = Schedule(cron="0 6 * * *"), str(tmp_path / "crm.yaml")
    with served(place) as site:
        site.sign_in()
        for number in range(90):
            place.clock.move(60)
            run = site.store.begin_run("crm", execution_date=place.clock.time).id
            site.store.end_attempt(run)
            site.store.finish_run(run)
            if number % 10 == 5:
                place.clock.move(1)
                site.store.schedules.pause("crm", file, schedule, who="x", reason=f"no {number}")
        found, query = "", ""
        for _ in range(3):
            page = texts(site, f"/pipelines/crm{query}")
            found += page
            query = f"?before={page.rpartition('before=')[2].partition('#')[0]}"
        assert found.count('<li class="of-run">') == 90
        assert [f": no {number}" in found.replace('<span class="whole">', "") for number in range(5, 90, 10)] == [
            True
        ] * 9
        assert found.count('<li class="of-action">') == 9
        assert "Earlier" not in page


@pytest.mark.full
@pytest.mark.parametrize("store", STORES)
def test_each_page_answers_over_many_runs(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """`python -m tests.sync.serve.web.large_store` measures them over a million."""
    url = f"sqlite:///{tmp_path}/store.db" if store == "sqlite" else str(request.getfixturevalue("postgres_url"))
    place = Place(tmp_path, url)
    fill(place, 20_000)
    with served(place) as site:
        site.sign_in()
        assert len(list(measured(site, 20_000, rounds=1))) == 14
