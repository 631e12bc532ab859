"""What all pages share: templates, the session that each of them needs, and what is shown where something is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from ...errors import StateError, StoreUnreachable
from ..orders import OrderRefused, Orders
from .sessions import FORM_TOKEN, form_token, is_own_form, served_by, session_of
from .words import FILTERS

#: Most bytes of a form.
MOST_FORM_BYTES = 65_536

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"

_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.filters.update(FILTERS)

Handler = Callable[[Request], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


class Problem(Exception):
    """What a person asked for cannot be shown or done."""

    def __init__(self, status: int, what: str, way: str = "") -> None:
        """Take the status of the answer, what is wrong, and how to go on."""
        super().__init__(what)
        self.status = status
        self.what = what
        self.way = way


def query_number(request: Request, name: str) -> int | None:
    """Return a number of the query; None: it has none, or one that no list and no run reaches."""
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


def page(handler: Handler) -> Endpoint:
    """Make an endpoint for who is signed in. `handler` runs in a thread, so it may read the run store.

    Without a session a GET is sent to the sign-in page, all else gets 401. All but a GET needs an allowed origin and
    the session's form token (403); its fields are `request.state.form` then.
    """

    @wraps(handler)
    def signed_in(request: Request) -> Response:
        secret = session_of(request)
        if secret is None:
            if is_reading(request):
                return RedirectResponse("/login", status_code=303)
            return PlainTextResponse("sign in first: open /login\n", status_code=401)
        request.state.session = secret
        if not is_reading(request) and not is_own_form(request, secret, request.state.form.pop(FORM_TOKEN, "")):
            raise Problem(403, "this form is none of this session's pages", "Open the page anew and try again.")
        return handler(request)

    return unsigned(signed_in)


def unsigned(handler: Handler) -> Endpoint:
    """Make an endpoint that needs no session, and that judges itself what a form brings; see `page`."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        request.state.session = None
        request.state.form = {} if is_reading(request) else await _form(request)
        if request.state.form is None:
            return PlainTextResponse("this form is too large, or none\n", status_code=413)
        return await run_in_threadpool(_answer, handler, request)

    return endpoint


def render(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """Return a page made of a template; see `rendered`."""
    return HTMLResponse(rendered(request, name, **values), status_code=status)


def rendered(request: Request, name: str, **values: Any) -> str:
    """Return the text of a template, which gets what all pages have beside `values`.

    `session`: whether somebody is signed in. `form_token`: the field of each form. `now`: this machine's time.
    """
    secret: str | None = request.state.session
    served = served_by(request)
    about = {
        "session": secret is not None,
        "form_token": "" if secret is None else form_token(secret),
        "now": served.clock.now(),
        "folder": str(served.folder),
        "path": request.url.path,
    }
    # A JSON text of the store may hold half of a character, which no page can.
    return _TEMPLATES.get_template(name).render(about | values).encode("utf-8", "replace").decode()


def show_problem(request: Request, problem: Problem) -> Response:
    """Return the page that says what is wrong."""
    title = HTTPStatus(problem.status).phrase
    return render(request, "problem.html", problem.status, title=title, what=problem.what, way=problem.way)


async def show_no_route(request: Request, error: Exception) -> Response:
    """Return the page for a request that no route takes. Tells nothing of the folder: anybody may ask."""
    assert isinstance(error, HTTPException)
    request.state.session = None
    answer = show_problem(request, Problem(error.status_code, "There is no such page."))
    answer.headers.update(error.headers or {})
    return answer


def is_reading(request: Request) -> bool:
    """Whether a request changes nothing."""
    return request.method in ("GET", "HEAD")


def orders_of(request: Request) -> Orders:
    """Return what takes the orders of a page; what it refuses becomes a page that says why."""
    served = served_by(request)
    return Orders(served.store, served.files, served.clock)


def _answer(handler: Handler, request: Request) -> Response:
    try:
        return handler(request)
    except Problem as problem:
        return show_problem(request, problem)
    except OrderRefused as refused:
        return show_problem(request, Problem(refused.status, refused.message))
    except StoreUnreachable as error:
        # The reason names hosts and users; who is signed in is not known without the store.
        what = str(error) if request.state.session is not None else "The run store does not answer."
        return show_problem(request, Problem(503, what, "Runs that go are left alone. Try again soon."))
    except StateError as error:
        return show_problem(request, Problem(409, str(error)))


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None: it is too large, or no form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            return None
    try:
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        return None
    return None if any("\0" in each for each in fields.values()) else fields  # PostgreSQL takes none
