"""The annotators' pages and requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pipelines.data.faults import fault_of
from pipelines.labels.page.page_context import PageContext, refusal, set_session
from pipelines.labels.page.security import REPORT_PATH, json_body, read_body
from pipelines.labels.page.views import history_view, own_values, shown_values, task_view, withdrawn_view
from pipelines.labels.store.records import Assignment, Conflict, Identity, Invalid, NotAssigned, Paused, Submission

BODY_LIMIT = 64 << 10
WRITING_LIMIT = 1 << 20
"""Of a request with a demonstration: what the longest text that the store takes can need as JSON."""
MOST_COMMENT = 4000
_DAY = 86_400.0
_Handler: TypeAlias = Callable[[PageContext, Request], Coroutine[Any, Any, Response]]
_Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{8,64}$")]


class Body(BaseModel):
    """Body of a request: an unknown field or a value of another type is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


_Found = TypeVar("_Found", bound=Body)


class _Undone(Body):
    key: _Key


class _Submitted(Body):
    task: str = Field(max_length=64)
    key: _Key
    version: int = Field(ge=0, lt=1 << 31)
    values: dict[str, list[int] | str] = Field({}, max_length=100)
    comment: str = Field("", max_length=MOST_COMMENT)
    flagged: bool = False
    skipped: bool = False
    seconds: float | None = Field(None, ge=0)


def annotator_routes(page: PageContext) -> list[BaseRoute]:
    """All routes but those of the admin and the static files."""
    pages: dict[str, _Handler] = {
        "/enter/{token}": _enter,
        "/": _next_task,
        "/task/{task}": _own_task,
        "/history": _history,
        "/guidelines": _guidelines,
        "/healthz": _health,
    }
    posts: dict[str, _Handler] = {"/api/submit": _submit, "/api/undo": _undo, REPORT_PATH: _report}
    return [
        *(Route(path, handler(page, handle), methods=["GET"]) for path, handle in pages.items()),
        *(Route(path, handler(page, handle), methods=["POST"]) for path, handle in posts.items()),
    ]


def handler(page: PageContext, handle: _Handler) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """The handler as Starlette calls it."""
    return partial(handle, page)


async def _enter(page: PageContext, request: Request) -> Response:
    # Whoever only looks ahead, such as a preview of the link in a chat, must not use up the token.
    if request.method == "HEAD" or "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
        return PlainTextResponse("open this link in a browser", 503)
    session = await page.call(page.store.redeem, request.path_params["token"])
    known = await page.identity(request, "annotator") or await page.identity(request, "admin") if not session else None
    who: Identity | None = session or known
    if who is None:
        return page.page(
            "message.html",
            status=403,
            title="This link does not work any more",
            text="It was used already, or it is old. A link works once and in one browser. Ask whoever sent it to you "
            "for a new one.",
        )
    response = page.page("welcome.html", who, guidelines_html=page.guidelines)
    if session is not None:
        set_session(request, response, session)
    return response


async def _next_task(page: PageContext, request: Request) -> Response:
    if not await page.identity(request, "annotator") and await page.identity(request, "admin"):
        return RedirectResponse("/admin", 303)
    who = await page.require(request, "annotator")
    try:
        assignment = await page.call(page.store.next_task, who.name)
    except Paused:
        return page.page("paused.html", who)
    if assignment is None:
        progress = await page.call(page.store.progress)
        own = next(one for one in progress.annotators if one.name == who.name)
        return page.page("done.html", who, answered=own.done, skipped=own.skipped)
    return _task_page(page, who, assignment, editing=False)


async def _own_task(page: PageContext, request: Request) -> Response:
    who = await page.require(request, "annotator")
    try:
        assignment = await page.call(page.store.assignment, who.name, request.path_params["task"])
    except Paused:
        return page.page("paused.html", who)
    if assignment is None:
        raise HTTPException(404, "there is no such task among yours")
    return _task_page(page, who, assignment, editing=assignment.earlier is not None)


def _task_page(page: PageContext, who: Identity, assignment: Assignment, *, editing: bool) -> Response:
    view = task_view(assignment, page.settings.questions, editing=editing)
    return page.page("task.html", who, task=view, draft=view["draft"], progress=_progress(assignment))


async def _history(page: PageContext, request: Request) -> Response:
    who = await page.require(request, "annotator")
    entries = await page.call(page.store.history, who.name, limit=500)
    return page.page("history.html", who, entries=[history_view(entry, page.settings.questions) for entry in entries])


async def _guidelines(page: PageContext, request: Request) -> Response:
    who = await page.identity(request, "annotator") or await page.require(request, "admin")
    if not page.settings.guidelines:
        raise HTTPException(404, "this project has no guidelines")
    return page.page("guidelines.html", who, html=page.guidelines)


async def _health(page: PageContext, request: Request) -> Response:
    return PlainTextResponse("ok")


async def _report(page: PageContext, request: Request) -> Response:
    await read_body(request, BODY_LIMIT)
    page.csp_reports = min(page.csp_reports + 1, 9999)
    return Response(status_code=204)


async def _submit(page: PageContext, request: Request) -> Response:
    who = await page.require(request, "annotator")
    writing = any(question.kind == "demonstration" for question in page.settings.questions)
    submitted = read_as(_Submitted, await json_body(request, WRITING_LIMIT if writing else BODY_LIMIT))
    return await page.call(_take, page, who.name, submitted)


def read_as(kind: type[_Found], body: object) -> _Found:
    """The body as this kind; HTTPException 422: it is none."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise HTTPException(422, str(fault_of(error))) from None


def _take(page: PageContext, name: str, submitted: _Submitted) -> Response:
    store = page.store
    before = store.assignment(name, submitted.task)
    if before is None:
        raise NotAssigned(submitted.task)
    seconds = None if submitted.seconds is None else min(submitted.seconds, _DAY)
    as_sent = submitted.model_dump(include={"comment", "flagged", "skipped", "key", "version"})
    submission = Submission(own_values(submitted.values, before.order), seconds, **as_sent)
    try:
        receipt = store.submit(name, submitted.task, submission)
    except Conflict as conflict:
        values = shown_values(conflict.label.values, before.order) if conflict.label else {}
        return refusal(409, str(conflict), {"version": conflict.version, "values": values, "kept": conflict.kept})
    after = store.assignment(name, submitted.task) or before
    return JSONResponse({**vars(receipt), "next": "/", **_progress(after)})


def _progress(assignment: Assignment) -> dict[str, int]:
    return {"done": assignment.done, "skipped": assignment.skipped, "left": assignment.left}


async def _undo(page: PageContext, request: Request) -> Response:
    who = await page.require(request, "annotator")
    undone = read_as(_Undone, await json_body(request, BODY_LIMIT))
    return await page.call(_take_back, page, who.name, undone.key)


def _take_back(page: PageContext, name: str, key: str) -> Response:
    """Undo, and tell which answer was withdrawn: the page shows it again where no earlier one stands."""
    known, answered = page.undone.get(name, ("", {}))
    if known == key:
        return JSONResponse(answered)
    newest = page.store.history(name, limit=1)
    task = page.store.undo(name, key)
    if task is None:
        return refusal(409, "nothing to undo")
    after = page.store.assignment(name, task)
    # The same version as before: a repeated request, which took nothing back now.
    withdrawn = [entry for entry in newest if after and (entry.label.task, entry.version + 1) == (task, after.version)]
    content = {
        "task": task,
        "next": f"/task/{task}",
        "stands": after is not None and after.earlier is not None,
        "withdrawn": withdrawn_view(withdrawn[0]) if withdrawn else None,
    }
    page.undone[name] = (key, content)
    return JSONResponse(content)


STORE_ERRORS: dict[type[Exception], tuple[int, str]] = {
    NotAssigned: (404, "there is no such task among yours"),
    Paused: (423, "labeling is paused; what you submitted is kept, please try again later"),
    Invalid: (422, ""),
}
"""Status and words for what the store refuses; without words its own are shown."""
