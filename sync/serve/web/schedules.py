"""The page of all schedules: what is due when, and what became of the last times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...freshness.look import times_to_come
from ...schedules import Schedule
from ...store.schedules import KnownSchedule, Pause
from ...store.views import TickLine
from .pages import page, render
from .pipeline import when
from .pipelines import paged
from .sessions import served_by

#: Times that are shown of each schedule: to come, and decided.
NEXT, LAST = 2, 3


class ScheduleLine(Struct, frozen=True, kw_only=True):
    """A schedule in the list."""

    pipeline: str
    #: Whether a file of this server has it.
    is_served: bool
    file: str
    when: str
    zone: str
    missed: str
    overlap: str
    #: None: it is not paused.
    pause: Pause | None
    next: Sequence[datetime]
    ticks: Sequence[TickLine]


@page
def _schedules(request: Request) -> Response:
    served = served_by(request)
    now = served.clock.now()
    known = {each.pipeline: each for each in served.store.schedules.known()}
    pauses = {name: each.pause_at(now) for name, each in known.items()}
    ours = {name: head.schedule for name, head in served.files.heads.items() if head.schedule is not None}
    gone = {name for name, each in known.items() if each.schedule is not None} - ours.keys()
    text = request.query_params.get("q", "").strip()
    # What is held back comes first: nobody sees by itself that it does not run.
    names = sorted(
        (name for name in {*ours, *gone} if text.casefold() in name.casefold()),
        key=lambda name: (pauses.get(name) is None, name not in gone, name),
    )
    pages, part = paged(request, len(names))
    ticks = served.store.views.last_ticks(names[part], LAST)
    return render(
        request,
        "schedules.html",
        lines=[
            _line(
                name,
                ours.get(name) or Schedule(**known[name].schedule or {}),
                known.get(name),
                ticks[name],
                pauses.get(name),
                now,
                is_served=name in ours,
            )
            for name in names[part]
        ],
        number=len(names),
        total=len({*ours, *gone}),
        text=text,
        pages=pages,
    )


def _line(
    name: str,
    schedule: Schedule,
    known: KnownSchedule | None,
    ticks: Sequence[TickLine],
    pause: Pause | None,
    now: datetime,
    *,
    is_served: bool,
) -> ScheduleLine:
    return ScheduleLine(
        pipeline=name,
        is_served=is_served,
        file="" if known is None else known.file,
        when=when(schedule),
        zone=schedule.timezone,
        missed=schedule.missed,
        overlap=schedule.overlap,
        pause=pause,
        next=times_to_come(schedule, pause, now, NEXT) if is_served else [],
        ticks=ticks,
    )


ROUTES = [Route("/schedules", _schedules)]
