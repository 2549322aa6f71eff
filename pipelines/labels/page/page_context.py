"""Context of the handlers of the label page: the store, the templates and the identity of the visitor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import jinja2
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from pipelines.labels.page.views import guidelines_html, rendered_html
from pipelines.labels.store.records import Identity, Role, Session
from pipelines.labels.store.store import LabelStore
from pipelines.report.safe_text import visible

TEMPLATES = Path(__file__).parent / "templates"
SESSION_SECONDS = 30 * 24 * 3600
"""As long as the store keeps a session."""
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


class PageContext:
    """The store, used by one thread so that requests take turns in the order in which they came, and the pages.

    Attributes:
        settings: of the store, as they were when it was last asked for something.
        csp_reports: how often a browser said that a page broke its own rules; since the server started.
        exporting: held while an export is made: others wait, and between two of them annotators have their turn.
        undone: by annotator, the key of the last undo and what it was answered, for when that answer was lost on its
            way; the store knows the key again, but not what stood before.
    """

    def __init__(self, store: LabelStore, *, markdown: bool = False) -> None:
        self.store = store
        self.markdown = markdown
        self.settings = store.settings
        self.csp_reports = 0
        self.undone: dict[str, tuple[str, dict[str, Any]]] = {}
        self.exporting = asyncio.Lock()
        self._turns = ThreadPoolExecutor(1, "label-store")
        loader = jinja2.FileSystemLoader(TEMPLATES)
        self._pages = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._pages.filters["visible"] = visible
        self._pages.filters["rendered"] = lambda text: Markup(rendered_html(text))

    @property
    def guidelines(self) -> Markup | None:
        """The guidelines as HTML; None: there are none."""
        return Markup(guidelines_html(self.settings.guidelines)) if self.settings.guidelines else None

    async def call(self, work: Callable[_Given, _Found], *args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        """Do something with the store, off the event loop."""

        def turn() -> _Found:
            self.settings = self.store.settings  # a round of `rlhf all` can have changed them
            return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._turns, turn)

    def page(self, name: str, who: Identity | None = None, *, status: int = 200, **context: Any) -> Response:
        """A page of the template `name`."""
        common = {
            "title": self.settings.title,
            "annotator": who.name if who else None,
            "role": who.role if who else None,
            "markdown": self.markdown,
            "has_guidelines": bool(self.settings.guidelines),
        }
        return HTMLResponse(self._pages.get_template(name).render(common | context), status)

    async def identity(self, request: Request, role: Role) -> Identity | None:
        """Return the identity behind a request in that role; None: it is not known."""
        token = request.cookies.get(cookie_name(request, role))
        visitor = await self.call(self.store.session, token) if token else None
        return visitor if visitor is not None and visitor.role == role else None

    async def require(self, request: Request, role: Role) -> Identity:
        """Return the identity behind a request in that role.

        Raises:
            HTTPException: 401: nobody that is known; 403: somebody of the other role.
        """
        if visitor := await self.identity(request, role):
            return visitor
        other: Role = "annotator" if role == "admin" else "admin"
        if await self.identity(request, other):
            raise HTTPException(403, f"this is for {'the admin' if role == 'admin' else 'annotators'} only")
        raise HTTPException(401, "open your own link first; where it was used already, ask for a new one")


def cookie_name(request: Request, role: Role) -> str:
    """One for each role, so that one browser can be both, and for each port: browsers share cookies among ports."""
    port = urlsplit(request.state.origin).port
    return ("rlhf_admin" if role == "admin" else "rlhf_session") + (f"_{port}" if port else "")


def set_session(request: Request, response: Response, session: Session) -> None:
    """Hand the session to the browser, out of reach of any script and of other sites."""
    response.set_cookie(
        cookie_name(request, session.role),
        session.token,
        max_age=SESSION_SECONDS,
        path="/",
        secure=request.state.origin.startswith("https://"),
        httponly=True,
        samesite="strict",
    )


def refusal(
    status: int, words: str, more: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer to a script that asked for what it cannot have: JSON with ``error``, and `more`."""
    return JSONResponse({"error": words, **(more or {})}, status, headers)
