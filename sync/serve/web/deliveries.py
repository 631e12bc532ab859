"""The page of callbacks that are dead or due, of all pipelines."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from .pages import Problem, orders_of, page, query_number, render
from .sessions import WHO, served_by

PER_PAGE = 100
#: Of the list of what is due.
MOST_DUE = 100


@page
def _deliveries(request: Request) -> Response:
    views = served_by(request).store.views
    pipeline = request.query_params.get("pipeline") or None
    number = min(max(query_number(request, "page") or 1, 1), 10_000)
    dead = views.deliveries("dead", pipeline=pipeline, most=PER_PAGE + 1, offset=(number - 1) * PER_PAGE)
    due = views.deliveries("open", pipeline=pipeline, most=MOST_DUE + 1)
    return render(
        request,
        "deliveries.html",
        dead=dead[:PER_PAGE],
        due=due[:MOST_DUE],
        has_more_due=len(due) > MOST_DUE,
        pipeline=pipeline,
        number=number,
        has_more=len(dead) > PER_PAGE,
    )


@page
def _again(request: Request) -> Response:
    form = request.state.form
    if not form.get("pipeline") or not form.get("key"):
        raise Problem(400, "This form names no delivery.", "Open the page anew and try again.")
    orders_of(request).deliver(form["pipeline"], form["key"], who=WHO)
    query = f"?{urlencode({'pipeline': form['filter']})}" if form.get("filter") else ""
    return RedirectResponse(f"/deliveries{query}", status_code=303)


ROUTES = [
    Route("/deliveries", _deliveries),
    Route("/deliveries/again", _again, methods=["POST"]),
]
