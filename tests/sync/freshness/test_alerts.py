"""Alerts: told once when something begins and once when it is over, by one process, and never lost."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.freshness import Judgement, Looked, alert, alert_urls
from syncblocks.sync.freshness.look import FolderLook, StoreLook
from syncblocks.sync.store import Store
from syncblocks.sync.store.alerts import Finding
from syncblocks.sync.store.owner import Owner, current_owner
from tests.callbacks.listener import Listener, http_listener
from tests.sync.store.store_helpers import STORES, FixedClock, query, store_url_of

LATE = Finding(pipeline="crm", kind="late", what="no success for 1h")


def crm(*findings: Finding, **more: Any) -> Looked:
    judgement = Judgement(findings=findings, **more)
    return Looked(file=Path("/pipelines/crm.yaml"), pipeline="crm", word="late", judgement=judgement)


class Watch:
    """Looks at made-up pipelines; each process has an owner of its own."""

    def __init__(self, url: str, clock: FixedClock, listeners: Sequence[Listener]) -> None:
        self.url, self.clock = url, clock
        self.urls = [f"json://user:pa55word@127.0.0.1:{each.port}/t0ken" for each in listeners]
        self.warnings: list[str] = []

    def look(self, *looked: Looked, owner: Owner | None = None) -> int:
        with Store.open(self.url, clock=self.clock, owner=owner) as store:
            look = FolderLook(folder=Path("/pipelines"), looked=looked, stores=(StoreLook(store, looked),))
            return alert(look, self.urls, self.warnings.append)


def texts(listener: Listener) -> list[str]:
    return [each.event["message"] for each in listener.requests]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with http_listener() as found:
        yield found


@pytest.fixture
def watch(tmp_path: Path, clock: FixedClock, listener: Listener) -> Watch:
    return Watch(f"sqlite:///{tmp_path}/store.db", clock, [listener])


def test_a_finding_is_told_when_it_begins_and_when_it_is_over(
    watch: Watch, clock: FixedClock, listener: Listener
) -> None:
    since = clock.now() - timedelta(minutes=5)
    late = replace(LATE, since=since)
    assert [watch.look(crm(late)) for _ in range(3)] == [1, 0, 0]
    assert texts(listener) == ["crm: no success for 1h; since 2026-01-02 02:59 UTC; no success yet"]
    assert listener.requests[0].event["title"] == "syncblocks: crm: late"
    for _ in range(3):
        assert watch.look(crm()) == 0
        clock.move(299)
    clock.move(10)
    assert [watch.look(crm()) for _ in range(2)] == [1, 0]
    assert texts(listener)[1:] == ["crm: over since 2026-01-02 03:04 UTC: no success for 1h"]
    assert listener.requests[1].event["type"] == "success"
    assert [watch.look(crm(late)) for _ in range(2)] == [1, 0]  # another one


def test_what_begins_again_within_ten_minutes_is_the_same_alert(watch: Watch, clock: FixedClock) -> None:
    assert watch.look(crm(LATE)) == 1
    for _ in range(5):
        clock.move(300)
        assert watch.look(crm()) == 0
        clock.move(599)
        assert watch.look(crm(LATE)) == 0
    watch.look(crm())
    clock.move(600)
    assert watch.look(crm()) == 1
    assert query(watch.url, "select max(occurrence) from _syncblocks_alert") == [(1,)]


def test_all_that_is_new_is_one_message_with_owner_and_runbook(
    watch: Watch, listener: Listener, tmp_path: Path
) -> None:
    from syncblocks.sync.config.head import read_head

    file = tmp_path / "crm.yaml"
    file.write_text("owner: data\ntags: [a, b]\nrunbook: https://wiki.example/crm\n")
    findings = (LATE, replace(LATE, stream="a", kind="missing", what="is gone"))
    other = Finding(pipeline="x.yaml", kind="broken", what="broken: x.yaml:3")
    looked = replace(crm(*findings), head=read_head(file))
    broken = Looked(file=tmp_path / "x.yaml", pipeline="x.yaml", word="broken", judgement=Judgement(findings=(other,)))
    assert watch.look(looked, broken) == 1
    about = "owner data; tags a, b; runbook https://wiki.example/crm"
    assert set(texts(listener)[0].splitlines()) == {
        f"crm: no success for 1h; no success yet; {about}",
        f"crm, stream a: is gone; {about}",
        "x.yaml: broken: x.yaml:3",
    }
    assert listener.requests[0].event["title"] == "syncblocks: 3 new"


def test_what_was_not_sent_is_sent_at_the_next_look_and_only_where_it_was_not(
    tmp_path: Path, clock: FixedClock
) -> None:
    with http_listener() as one, http_listener([500, 500, 200]) as two:
        watch = Watch(f"sqlite:///{tmp_path}/store.db", clock, [one, two])
        assert [watch.look(crm(LATE)) for _ in range(4)] == [1, 0, 1, 0]
        assert (len(one.requests), len(two.requests)) == (1, 3)
        assert len(watch.warnings) == 2
        assert watch.warnings[0].startswith("alert: URL 2 (json) was not notified")
        assert not [word for word in ("pa55word", "t0ken", str(two.port)) if word in "".join(watch.warnings)]


def test_what_was_over_before_it_could_be_told_is_told_still(tmp_path: Path, clock: FixedClock) -> None:
    with http_listener([500, 500, 200]) as listener:
        watch = Watch(f"sqlite:///{tmp_path}/store.db", clock, [listener])
        assert watch.look(crm(LATE)) == 0
        assert watch.look(crm()) == 0
        clock.move(600)
        assert [watch.look(crm()) for _ in range(2)] == [1, 0]
        assert texts(listener)[-1] == "crm: over since 2026-01-02 03:04 UTC: no success for 1h"


def test_what_cannot_be_judged_and_other_pipelines_stay_as_they_are(watch: Watch, clock: FixedClock) -> None:
    other = Looked(file=Path("/pipelines/other.yaml"), pipeline="other", word="on time")
    held = crm(unjudged=frozenset({("", "late")}))
    away = Looked(file=Path("/pipelines/crm.yaml"), pipeline="crm.yaml", word="broken")
    watch.look(crm(LATE), other)
    for looked in ((held, other), (other, away)):
        watch.look(*looked)
        clock.move(700)
        assert watch.look(*looked) == 0
    watch.look(other)  # its file is gone
    clock.move(700)
    assert watch.look(other) == 1


@pytest.mark.parametrize("kind", STORES)
def test_of_several_that_look_at_once_one_tells(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock, listener: Listener
) -> None:
    request.param = kind
    watch = Watch(store_url_of(request, tmp_path), clock, [listener])
    watch.look()  # makes the store
    start = threading.Barrier(4)

    def look(number: int) -> None:
        start.wait()
        watch.look(crm(LATE), owner=replace(current_owner(), host=f"host {number}", boot_id="elsewhere"))

    threads = [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listener.requests) == 1


def test_an_alert_is_told_by_another_process_if_one_dies_while_it_tells(watch: Watch, clock: FixedClock) -> None:
    files, nothing = {"crm": "/pipelines/crm.yaml"}, {"crm": frozenset[Any]()}
    elsewhere = replace(current_owner(), host="other", boot_id="elsewhere")
    with Store.open(watch.url, clock=clock, owner=elsewhere) as store:
        assert len(store.alerts().note({"crm": [LATE]}, files, nothing, urls=1)) == 1
    assert watch.look(crm(LATE)) == 0
    clock.move(301)
    assert watch.look(crm(LATE)) == 1
    dead = replace(current_owner(), started=1)
    missing = replace(LATE, kind="missing")
    with Store.open(watch.url, clock=clock, owner=dead) as store:
        assert len(store.alerts().note({"crm": [LATE, missing]}, files, nothing, urls=1)) == 1
    assert watch.look(crm(LATE, missing)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not set"),
        ("slak://t0ken", "URL 1 of 1"),
        ("json://127.0.0.1/t0ken, slak://t0ken\nmailto://", "URL 2, 3 of 3"),
    ],
)
def test_urls_that_are_wrong_are_refused_before_the_first_alert(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        alert_urls("ALERT", {"ALERT": text})
    assert "t0ken" not in str(caught.value)


def test_urls_stand_behind_each_other() -> None:
    text = " json://127.0.0.1/a,b json://c\n,json://d "
    assert alert_urls("ALERT", {"ALERT": text}) == ("json://127.0.0.1/a,b", "json://c", "json://d")


def test_of_one_subject_one_alert_is_open(watch: Watch) -> None:
    """Another process may begin the same alert between a look at the open ones and the number of the new one."""
    watch.look(crm(LATE))
    columns = "pipeline, stream, kind, {}, file, what, begun_at, told, over_told, is_closed"
    rows = f"SELECT {columns.format('2')} FROM _syncblocks_alert"
    with pytest.raises(sqlite3.IntegrityError):
        query(watch.url, f"INSERT INTO _syncblocks_alert ({columns.format('occurrence')}) {rows}")
