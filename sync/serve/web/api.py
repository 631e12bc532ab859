"""The API: what pages show as JSON, and orders, for programs with a token."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...errors import StateError, StoreUnreachable
from ...freshness.documents import status_document
from ...freshness.look import times_to_come
from ...schedules import Schedule
from ...store.access import OPERATE, READ, RUN, Token
from ...store.documents import delivery_documents, listed_run, run_document, tick_document, whole_run
from ...store.model import PipelineRun
from ...store.schedules import KnownSchedule
from ...store.ticks import Tick
from ..orders import OrderRefused, Orders
from .answers import Refused, answer, traceback_of
from .bearer import lacks, token_of
from .looks import Looks
from .order_body import body_of, demand_keys, hash_of, moment_of, run_options
from .served import Served

log = logging.getLogger("syncblocks")

#: Most runs of an answer, and how many it has if nothing is said.
MOST_LISTED, USUALLY_LISTED = 1000, 100
#: Times of a schedule that are told.
_NEXT = 5
_KEY = re.compile(r"[!-~]{1,200}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DELIVERY = re.compile(r"[0-9a-f]{32}")

#: Takes a request, its token and its body; may read the run store.
_Handler = Callable[[Request, Token, dict[str, Any]], Response]


def make_api(served: Served, looks: Looks) -> Starlette:
    """Return the application below `/api`."""
    api = _Api(served, looks)
    handlers: dict[str, dict[str, tuple[str, _Handler]]] = {
        "/pipelines": {"GET": (READ, api.pipelines)},
        "/pipelines/{pipeline:name}": {"GET": (READ, api.pipeline)},
        "/pipelines/{pipeline:name}/runs": {"GET": (READ, api.runs), "POST": (RUN, api.start)},
        "/pipelines/{pipeline:name}/deliveries/{key}/retry": {"POST": (OPERATE, api.deliver)},
        "/runs/{number}": {"GET": (READ, api.run)},
        "/runs/{number}/deliveries": {"GET": (READ, api.deliveries)},
        "/runs/{number}/cancel": {"POST": (OPERATE, api.cancel)},
        "/runs/{number}/retry": {"POST": (OPERATE, api.retry)},
        "/schedules": {"GET": (READ, api.schedules)},
        "/schedules/{pipeline:name}/pause": {"POST": (OPERATE, api.pause)},
        "/schedules/{pipeline:name}/resume": {"POST": (OPERATE, api.resume)},
        # Who may start a run may see what became of the order.
        "/ticks/{number}": {"GET": ("", api.tick)},
    }
    routes = [Route(path, api.endpoint(of_path), methods=list(of_path)) for path, of_path in handlers.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: api.no_route})
    app.router.redirect_slashes = False
    return app


class _Api:
    """The handlers."""

    def __init__(self, served: Served, looks: Looks) -> None:
        self._served = served
        self._looks = looks
        self._store = served.store
        self._redactor = served.redactor
        self._orders = Orders(served.store, served.files, served.clock)

    def endpoint(self, handlers: Mapping[str, tuple[str, _Handler]]) -> Callable[[Request], Any]:
        """Return what answers the methods of a path: method -> the scope that it needs, and its handler."""

        async def endpoint(request: Request) -> Response:
            scope, handler = handlers["GET" if request.method == "HEAD" else request.method]
            try:
                token = await run_in_threadpool(self._token, request, scope)
                body = await body_of(request) if request.method == "POST" else {}
                return await run_in_threadpool(handler, request, token, body)
            except Refused as error:
                return self._error(error.status, str(error), error.headers)
            except OrderRefused as error:
                return self._error(error.status, str(error))
            except StoreUnreachable as error:
                log.warning("API: %s", error)
                return self._error(503, "the run store does not answer")
            except Exception as error:
                log.error("API: %s %r: %s", request.method, request.url.path, traceback_of(error, self._redactor))
                return self._error(500, f"{type(error).__name__}: the server's log says more")

        return endpoint

    async def no_route(self, _request: Request, error: Exception) -> Response:
        """Answer a request that no route takes."""
        assert isinstance(error, HTTPException)
        return self._error(error.status_code, error.detail, error.headers)

    # -- what there is -------------------------------------------------------------------------------------------

    def pipelines(self, request: Request, _token: Token, _body: dict[str, Any]) -> Response:
        """Answer how the pipelines stand, the worst first."""
        demand_keys(request.query_params, (), "parameter")
        look = self._looks.all()
        document = {"type": "status", "at": look.at, "pipelines": [status_document(each) for each in look.looked]}
        return answer(document, self._redactor)

    def pipeline(self, request: Request, _token: Token, _body: dict[str, Any]) -> Response:
        """Answer how a pipeline stands."""
        name = _name(request)
        self._orders.file(name)
        found = self._looks.one(name)
        assert found is not None, "it has a file"
        return answer(status_document(found[0]), self._redactor)

    def runs(self, request: Request, _token: Token, _body: dict[str, Any]) -> Response:
        """Answer the runs of a pipeline, the latest first; also of one whose file is gone."""
        demand_keys(request.query_params, ("limit", "before"), "parameter")
        name, limit = _name(request), self._limit(request)
        before = (
            _number(request.query_params.get("before"), 400, "before") if "before" in request.query_params else None
        )
        found = self._store.runs(name, limit + 1, before=before)
        if not found and self._store.latest_run(name) is None:
            self._orders.file(name)
        document = {
            "type": "runs",
            "pipeline": name,
            "runs": [listed_run(self._store, run) for run in found[:limit]],
            "next": found[limit - 1].id if len(found) > limit else None,
        }
        return answer(document, self._redactor)

    def run(self, request: Request, _token: Token, _body: dict[str, Any]) -> Response:
        """Answer a run with its block runs and deliveries."""
        return answer({"type": "run", **whole_run(self._store, self._run(request))}, self._redactor)

    def deliveries(self, request: Request, _token: Token, _body: dict[str, Any]) -> Response:
        """Answer the deliveries of a run."""
        run = self._run(request)
        return answer({"run_id": run.id, "deliveries": delivery_documents(self._store, run)}, self._redactor)

    def schedules(self, request: Request, _token: Token, _body: dict[str, Any]) -> Response:
        """Answer the schedules in force, with their next times."""
        demand_keys(request.query_params, (), "parameter")
        found = [self._schedule(each) for each in self._store.schedules.known()]
        return answer({"schedules": found}, self._redactor)

    def tick(self, request: Request, token: Token, _body: dict[str, Any]) -> Response:
        """Answer what became of an order."""
        number = _number(request.path_params["number"], 404, "tick")
        try:
            tick = self._store.tick(number)
        except StoreUnreachable:
            raise
        except StateError:
            tick = None
        if not token.may_read and (tick is None or tick.ordered_by != _who(token)):
            raise lacks(token, READ)
        if tick is None:
            raise Refused(404, f"the run store knows no tick {number}")
        return answer(self._tick(request, tick), self._redactor)

    # -- orders --------------------------------------------------------------------------------------------------

    def start(self, request: Request, token: Token, body: dict[str, Any]) -> Response:
        """Order a run."""
        keys = request.headers.getlist("idempotency-key")
        if len(keys) > 1:
            raise Refused(400, f"the request has {len(keys)} headers Idempotency-Key, and only one is allowed")
        if keys and not keys[0]:
            raise Refused(400, "Idempotency-Key is empty. Set a text that identifies the order, or omit the header")
        if keys and not _KEY.fullmatch(keys[0]):
            raise Refused(400, "Idempotency-Key must have at most 200 ASCII characters and no spaces")
        # Another token may have had the name before.
        of_token = f"{token.created_at:%Y%m%dT%H%M%S%f}"
        order = {"key": f"{of_token} {keys[0]}", "order_hash": hash_of(body)} if keys else {}
        tick = self._orders.run(_name(request), run_options(body), who=_who(token), **order)
        return self._ordered(request, tick)

    def retry(self, request: Request, token: Token, body: dict[str, Any]) -> Response:
        """Order a new attempt of a run."""
        demand_keys(body, ())
        return self._ordered(request, self._orders.retry(self._run(request).id, who=_who(token)))

    def cancel(self, request: Request, token: Token, body: dict[str, Any]) -> Response:
        """Ask a run to stop."""
        demand_keys(body, ())
        run = self._orders.cancel(self._run(request).id, who=_who(token))
        return answer({**run_document(run), "cancel_requested": True}, self._redactor, 202)

    def deliver(self, request: Request, token: Token, body: dict[str, Any]) -> Response:
        """Make a dead delivery due again."""
        demand_keys(body, ())
        name, key = _name(request), request.path_params["key"]
        if not _DELIVERY.fullmatch(key):
            raise Refused(404, f"pipeline {name!r} has no such delivery")
        self._orders.deliver(name, key, who=_who(token))
        return answer({"pipeline": name, "key": key, "state": "ready"}, self._redactor, 202)

    def pause(self, request: Request, token: Token, body: dict[str, Any]) -> Response:
        """Pause a schedule."""
        demand_keys(body, ("until", "reason"))
        reason = body.get("reason")
        if reason is not None and not (isinstance(reason, str) and len(reason) <= 1000 and reason.isprintable()):
            raise Refused(400, "'reason' must be a line of at most 1,000 characters")
        name = _name(request)
        self._orders.pause(name, until=moment_of(body, "until"), reason=reason, who=_who(token))
        return self._schedule_of(name)

    def resume(self, request: Request, token: Token, body: dict[str, Any]) -> Response:
        """End the pause of a schedule."""
        demand_keys(body, ())
        name = _name(request)
        self._orders.resume(name, who=_who(token))
        return self._schedule_of(name)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _token(self, request: Request, scope: str) -> Token:
        token = token_of(request, self._store.access)
        if scope == RUN:
            name = request.path_params["pipeline"]
            if not token.may_run(name):
                raise lacks(token, f"{RUN}{name}")
        elif scope not in ("", *token.scopes):
            raise lacks(token, scope)
        return token

    def _run(self, request: Request) -> PipelineRun:
        number = _number(request.path_params["number"], 404, "run")
        try:
            return self._store.run(number)
        except StoreUnreachable:
            raise
        except StateError as error:
            raise Refused(404, str(error)) from error

    @staticmethod
    def _limit(request: Request) -> int:
        limit = _number(request.query_params.get("limit", str(USUALLY_LISTED)), 400, "limit")
        if not 1 <= limit <= MOST_LISTED:
            raise Refused(400, f"'limit' must be from 1 to {MOST_LISTED}")
        return limit

    def _ordered(self, request: Request, tick: Tick) -> Response:
        url = self._url(request, f"/api/ticks/{tick.id}")
        return answer({"tick": url, **self._tick(request, tick)}, self._redactor, 202, {"Location": url})

    def _tick(self, request: Request, tick: Tick) -> dict[str, Any]:
        run = None if tick.run_id is None else self._store.run(tick.run_id)
        return {
            **tick_document(tick),
            "run_status": None if run is None else run.status,
            "run": None if run is None else self._url(request, f"/api/runs/{run.id}"),
        }

    def _schedule_of(self, name: str) -> Response:
        (found,) = (each for each in self._store.schedules.known() if each.pipeline == name)
        return answer(self._schedule(found), self._redactor)

    def _schedule(self, known: KnownSchedule) -> dict[str, Any]:
        now = self._served.clock.now()
        pause = known.pause_at(now)
        schedule = None if known.schedule is None else Schedule(**known.schedule)
        return {
            "pipeline": known.pipeline,
            "file": known.file,
            "schedule": None if known.schedule is None else dict(known.schedule),
            "is_paused": pause is not None,
            "paused_until": None if pause is None else pause.until,
            "pause_reason": None if pause is None else pause.reason,
            "next": [] if schedule is None else times_to_come(schedule, pause, now, _NEXT),
        }

    def _url(self, request: Request, path: str) -> str:
        return self._served.url_for(request.headers["host"]) + quote(path)

    def _error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        return answer({"error": message}, self._redactor, status, headers)


def _who(token: Token) -> str:
    return f"token {token.name}"


def _name(request: Request) -> str:
    name: str = request.path_params["pipeline"]
    if not name.isprintable():  # as no name is
        raise Refused(404, f"no pipeline file of this server is named {name!r}")
    return name


def _number(text: str | None, status: int, what: str) -> int:
    if text is None or not _NUMBER.fullmatch(text):
        raise Refused(status, f"{what!r} must be a number from 0 to 999999999")
    return int(text)
