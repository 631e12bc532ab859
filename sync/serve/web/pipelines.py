"""The first page: all pipelines, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlencode

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...config.head import Head
from ...freshness.look import WORDS, Looked
from ...schedules.expect import Expect
from ...store.views import Recent
from .pages import page, query_number, render
from .sessions import served_by
from .words import roughly

PER_PAGE = 100


class PipelineLine(Struct, frozen=True, kw_only=True):
    """A pipeline in the list."""

    looked: Looked
    recent: Recent
    source: str
    destination: str
    expected: str
    missing: int

    @property
    def zone(self) -> str:
        """In which its times are shown."""
        head = self.looked.head
        return zone_of(head)


class Pages(Struct, frozen=True, kw_only=True):
    """Which part of a list is shown, and the queries of the parts beside it; None: there is none."""

    number: int
    count: int
    former: str | None
    next: str | None


@page
def _pipelines(request: Request) -> Response:
    look = request.app.state.looks.all()
    query = request.query_params
    text, tag, status = query.get("q", "").strip(), query.get("tag", ""), query.get("status", "")
    found = [each for each in look.looked if _is_wanted(each, text.casefold(), tag, status)]
    pages, part = paged(request, len(found))
    shown = found[part]
    recent = served_by(request).store.views.recent([each.pipeline for each in shown if each.head is not None])
    counts = Counter(each.word for each in look.looked)
    return render(
        request,
        "pipelines.html",
        lines=[_line(each, recent.get(each.pipeline, Recent())) for each in shown],
        total=len(look.looked),
        number=len(found),
        counts=[(word, counts[word]) for word in WORDS if counts[word]],
        looked_at=look.at,
        text=text,
        tag=tag,
        chosen=status,
        pages=pages,
    )


def paged(request: Request, total: int, per_page: int = PER_PAGE) -> tuple[Pages, slice]:
    """Return which part of a list the query `page` asks for."""
    count = max(1, -(-total // per_page))
    number = min(max(1, query_number(request, "page") or 1), count)

    def query(other: int) -> str | None:
        if not 1 <= other <= count:
            return None
        return "?" + urlencode({**request.query_params, "page": other})

    pages = Pages(number=number, count=count, former=query(number - 1), next=query(number + 1))
    return pages, slice((number - 1) * per_page, number * per_page)


def connectors_of(head: Head) -> tuple[str, str]:
    """Return the connectors of source and destination as the file writes them."""
    source, destination = (head.document.value.get(key, {}).get("connector") for key in ("source", "destination"))
    return str(source or "?"), str(destination or "?")


def zone_of(head: Head | None) -> str:
    """Return the zone in which the times of a pipeline are shown; None: it has no file here."""
    return "UTC" if head is None or head.schedule is None else head.schedule.timezone


def expected(expect: Expect | None) -> str:
    """Return `every 1h, within 30m`; empty: nothing is expected of the age."""
    spans = [] if expect is None else [("every", expect.every_s), ("within", expect.within_s)]
    return ", ".join(f"{word} {roughly(seconds)}" for word, seconds in spans if seconds is not None)


def _is_wanted(looked: Looked, text: str, tag: str, status: str) -> bool:
    if (status and looked.word != status) or (tag and (looked.head is None or tag not in looked.head.tags)):
        return False
    return not text or any(text in each.casefold() for each in _texts(looked))


def _texts(looked: Looked) -> Iterator[str]:
    yield looked.pipeline
    yield looked.file.name
    if looked.head is not None:
        yield from (*connectors_of(looked.head), *looked.head.tags, looked.head.owner or "")


def _line(looked: Looked, recent: Recent) -> PipelineLine:
    head = looked.head
    source, destination = ("", "") if head is None else connectors_of(head)
    return PipelineLine(
        looked=looked,
        recent=recent,
        source=source,
        destination=destination,
        expected="" if head is None else expected(head.expect),
        missing=sum(each.kind == "missing" for each in looked.judgement.findings),
    )


ROUTES = [Route("/", _pipelines)]
