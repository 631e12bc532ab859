"""The application: every route of a server."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from . import deliveries, pipeline, pipelines, run, schedules, sign_in, stream
from .api import make_api
from .guard import Guard
from .live import Live
from .looks import Looks
from .metrics import metrics
from .pages import STATIC, show_no_route
from .served import Served


def make_app(served: Served) -> Starlette:
    """Return the application of a server."""
    looks = Looks(served)

    async def ready(_request: Request) -> Response:
        why = served.why_not_ready()
        return PlainTextResponse("ready\n" if why is None else f"{why}\n", status_code=200 if why is None else 503)

    routes = [
        Route("/healthz", _alive),
        Route("/readyz", ready),
        Mount("/static", StaticFiles(directory=STATIC)),
        *sign_in.ROUTES,
        *(route for each in (pipelines, pipeline, run, stream, schedules, deliveries) for route in each.ROUTES),
        Mount("/api", make_api(served, looks)),
        Route("/metrics", metrics(served, looks)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, served=served)],
        exception_handlers={HTTPException: show_no_route},
    )
    app.state.served = served
    app.state.looks = looks
    app.state.live = Live(served)
    app.router.redirect_slashes = False
    return app


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive\n")
