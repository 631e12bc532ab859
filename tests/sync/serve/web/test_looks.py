"""A look at all pipelines is shared for a moment, and never old without somebody who waits for the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks.sync.errors import StoreUnreachable
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.serve.files import PipelineFiles
from syncblocks.sync.serve.web.looks import FRESH_S, TOO_OLD_S, Looks
from syncblocks.sync.serve.web.served import Served
from tests.sync.serve.serve_helpers import Place
from tests.sync.store.store_helpers import query


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.write()
    (tmp_path / "broken.yaml").write_text("source: {}\ndestination: {}\nowner: [1]\n")
    return found


def looks_of(place: Place) -> Looks:
    files = PipelineFiles(place.folder, place.url, place.clock)
    files.look()
    place.clock.move(2)
    files.look()
    urls = ("http://127.0.0.1:8400",)
    return Looks(Served(store=place.store(), files=files, folder=place.folder, clock=place.clock, urls=urls))


def test_visitors_share_a_look_for_a_moment(place: Place) -> None:
    looks = looks_of(place)
    first = looks.all()
    assert [(each.pipeline, each.word) for each in first.looked] == [("broken.yaml", "broken"), ("crm", "never ran")]
    assert "broken.yaml:3" in first.looked[0].why
    assert str(place.folder) not in first.looked[0].why
    assert looks.all() is first
    place.clock.move(FRESH_S + 1)
    looks.all()  # perhaps the former one: the next comes soon
    place.clock.move(TOO_OLD_S + 1)
    assert looks.all().at == place.clock.now()
    assert looks.one("none") is None
    found = looks.one("crm")
    assert found is not None
    assert found[0].word == "never ran"


def test_a_store_that_does_not_answer_is_an_error_until_it_does(place: Place) -> None:
    looks = looks_of(place)
    query(place.url, "ALTER TABLE _syncblocks_pipeline_run RENAME TO away")
    with pytest.raises(StoreUnreachable):
        looks.all()
    query(place.url, "ALTER TABLE away RENAME TO _syncblocks_pipeline_run")
    assert [each.pipeline for each in looks.all().looked] == ["broken.yaml", "crm"]


def test_a_schedule_whose_file_is_gone_is_shown_until_it_is_forgotten(place: Place) -> None:
    with place.store() as store:
        known = (str(place.folder / "away.yaml"), Schedule(every_s=3600))
        store.schedules.see({"away": known})
        (found,) = (each for each in looks_of(place).all().looked if each.pipeline == "away")
        assert (found.word, found.why.partition(";")[0]) == ("broken", "its file away.yaml is gone")
        store.schedules.forget("away")
    assert "away" not in [each.pipeline for each in looks_of(place).all().looked]
