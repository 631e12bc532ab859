"""Sign in by a code that is used once, and sign out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from .pages import Problem, is_reading, page, render, unsigned
from .sessions import delete_cookie, is_own_origin, served_by, session_of, set_cookie


@unsigned
def _sign_in(request: Request) -> Response:
    """Show the button. To open the page uses no code up: mail programs and chats open links, too."""
    if is_reading(request):
        if session_of(request) is not None:
            return RedirectResponse("/", status_code=303)
        return render(request, "login.html", code=request.query_params.get("code", ""), is_used=False)
    if not is_own_origin(request):
        raise Problem(403, "this form is none of this server's pages", "Open the link anew.")
    secret = served_by(request).store.access.sign_in(request.state.form.get("code", ""))
    if secret is None:
        return render(request, "login.html", 403, code="", is_used=True)
    response = RedirectResponse("/", status_code=303)
    set_cookie(request, response, secret)
    return response


@page
def _sign_out(request: Request) -> Response:
    served_by(request).store.access.sign_out(request.state.session)
    response = RedirectResponse("/login", status_code=303)
    delete_cookie(request, response)
    return response


ROUTES = [
    Route("/login", _sign_in, methods=["GET", "POST"]),
    Route("/logout", _sign_out, methods=["POST"]),
]
