"""The label page as one Starlette application."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipelines.errors import RlhfError
from pipelines.labels.page.admin import admin_routes
from pipelines.labels.page.page_context import PageContext, refusal
from pipelines.labels.page.routes import STORE_ERRORS, annotator_routes
from pipelines.labels.page.security import HEADERS, Guard
from pipelines.labels.store.store import LabelStore

STATIC = Path(__file__).parent / "static"
_KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
_NAMES = "label.js choices.js keys.js common.js admin.js label.css task.css pages.css icon.svg"
_TYPES = {name: _KINDS[name.partition(".")[2]] for name in _NAMES.split()}
_PLAIN = {"Not Found": "nothing is at this address", "Method Not Allowed": "this cannot be done here"}
"""For words of Starlette's."""
_TITLES = {401: "Please use your own link", 403: "Not for you", 404: "There is no such page"}


def make_app(store: LabelStore, *, origins: Sequence[str], markdown: bool = False) -> Starlette:
    """The label page over a store that is open for writing, and that whoever opened it closes.

    `origins` are the exact addresses by which the page is opened, each as ``http://127.0.0.1:8765``: under any other
    name it answers nothing. `markdown` renders Markdown in prompts and answers, else they are shown as written.
    """
    page = PageContext(store, markdown=markdown)
    static = [Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in _TYPES.items()]
    app = Starlette(
        routes=[*annotator_routes(page), *admin_routes(page), *static],
        middleware=[Middleware(Guard, origins=[origin.lower() for origin in origins])],
        exception_handlers={
            HTTPException: _refused(page),
            Exception: _failed,
            **{kind: _store_error(page, kind) for kind in STORE_ERRORS},
        },
    )
    app.router.redirect_slashes = False  # an address that is not exactly right is no page
    return app


def _static(name: str, kind: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    content = (STATIC / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return answer


_Refused = Callable[[Request, Exception], Coroutine[Any, Any, Response]]


def _refused(page: PageContext) -> _Refused:
    async def answer(request: Request, error: Exception) -> Response:
        status, words = getattr(error, "status_code", 500), getattr(error, "detail", "")
        return await _words(page, request, status, _PLAIN.get(words, words))

    return answer


def _store_error(page: PageContext, kind: type[Exception]) -> _Refused:
    async def answer(request: Request, error: Exception) -> Response:
        status, words = STORE_ERRORS[kind]
        return await _words(page, request, status, words or str(error))

    return answer


async def _words(page: PageContext, request: Request, status: int, words: str) -> Response:
    """A refusal: JSON for a script, a page for a person."""
    if request.method not in ("GET", "HEAD"):
        return refusal(status, words)
    who = await page.identity(request, "annotator") if status == 404 else None
    return page.page("message.html", who, status=status, title=_TITLES.get(status, "This did not work"), text=words)


async def _failed(request: Request, error: Exception) -> Response:
    """A full disk and the like are named; a mistake of ours is logged, and nothing of it is told."""
    told, status = (error.message, 503) if isinstance(error, RlhfError) else ("something went wrong on the server", 500)
    words = f"{told}; what was acknowledged before is kept"
    if request.method == "POST":
        return refusal(status, words, headers=HEADERS)
    return PlainTextResponse(words, status, HEADERS)
