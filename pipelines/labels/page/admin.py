"""The admin's pages: progress, agreement, pause, links, export."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pipelines.errors import RlhfError
from pipelines.labels.label_types import Label, LabelSet, with_pseudonyms
from pipelines.labels.page.page_context import PageContext
from pipelines.labels.page.routes import BODY_LIMIT, Body, handler, read_as
from pipelines.labels.page.security import json_body
from pipelines.labels.page.views import prompt_start
from pipelines.labels.store.contents import ADMIN
from pipelines.labels.store.fill import people
from pipelines.labels.store.store import LabelStore
from pipelines.labels.tasks_file import task_lines

_MOST_FLAGGED = 100
_MOST_COMMENTS = 50
_PART = 65536
"""Bytes of an export that are sent at a time: each must be read within `serve.UNREAD_SECONDS`."""


class _Pause(Body):
    paused: bool


class _Name(Body):
    name: str


_Asked = TypeVar("_Asked", bound=Body)


def admin_routes(page: PageContext) -> list[BaseRoute]:
    """The routes that need a session of the admin."""
    posts = {"pause": _pause, "annotators": _add, "link": _link, "revoke": _revoke}
    return [
        Route("/admin", handler(page, _overview), methods=["GET"]),
        Route("/admin/export", handler(page, _export), methods=["GET"]),
        *(Route(f"/api/admin/{name}", handler(page, handle), methods=["POST"]) for name, handle in posts.items()),
    ]


def login_path(token: str) -> str:
    """The path of a one-time link."""
    return f"/enter/{token}"


def fresh_links(store: LabelStore, origin: str) -> dict[str, str]:
    """Make a new one-time link for every annotator and for the admin; earlier unused links stop working."""
    links = {name: origin + login_path(store.login_token(name)) for name in people(store)}
    return links | {ADMIN: origin + login_path(store.login_token(ADMIN, "admin"))}


async def _overview(page: PageContext, request: Request) -> Response:
    who = await page.require(request, "admin")
    progress = await page.call(page.store.progress)
    labels = await page.call(page.store.snapshot)
    comments = [label for label in labels.labels if label.comment.strip() and not label.flagged]
    return page.page(
        "admin.html",
        who,
        progress=progress,
        agreement=await run_in_threadpool(_agreement, labels),
        paused=await page.call(lambda: page.store.paused),
        flagged=_told([label for label in labels.labels if label.flagged], _MOST_FLAGGED, labels),
        comments=_told(comments, _MOST_COMMENTS, labels),
        all_comments=len(comments),
        csp_reports=page.csp_reports,
        server={"address": request.state.origin},
    )


def _agreement(labels: LabelSet) -> list[dict[str, Any]]:
    from pipelines.labels.agreement.measures import agreement_lines  # numpy takes a while, and only the admin needs it

    return list(agreement_lines(labels))


def _told(remarks: Sequence[Label], most: int, labels: LabelSet) -> list[dict[str, Any]]:
    """Return remarks with their annotator and task, the newest first."""
    newest = sorted(remarks, key=lambda label: label.time or "", reverse=True)
    return [vars(label) | {"prompt_start": prompt_start(labels.tasks[label.task])} for label in newest[:most]]


async def _export(page: PageContext, request: Request) -> Response:
    await page.require(request, "admin")
    ending = "labels.pseudonyms" if request.query_params.get("pseudonyms") == "1" else "labels"
    async with page.exporting:
        labels = await page.call(page.store.snapshot)
        if ending != "labels":
            labels = with_pseudonyms(labels, await page.call(page.store.annotators))
        body = await run_in_threadpool(lambda: "".join(task_lines(labels)).encode())
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", page.settings.title).strip("-.") or "labels"
    parts = (body[start : start + _PART] for start in range(0, len(body), _PART))
    named = f'attachment; filename="{stem}.{ending}.jsonl"'
    headers = {"Content-Disposition": named, "Content-Length": str(len(body))}
    return StreamingResponse(parts, media_type="application/x-ndjson", headers=headers)


async def _pause(page: PageContext, request: Request) -> Response:
    paused = (await _body(page, request, _Pause)).paused

    def set_paused() -> None:
        page.store.paused = paused

    await page.call(set_paused)
    return JSONResponse({"paused": paused})


async def _add(page: PageContext, request: Request) -> Response:
    name = (await _body(page, request, _Name)).name.strip()
    try:
        await page.call(page.store.add_annotator, name)
    except RlhfError as error:
        raise HTTPException(422, error.message) from None
    return await _new_link(page, request, name)


async def _link(page: PageContext, request: Request) -> Response:
    return await _new_link(page, request, (await _body(page, request, _Name)).name)


async def _new_link(page: PageContext, request: Request, name: str) -> Response:
    try:
        token = await page.call(page.store.login_token, name)
    except RlhfError as error:
        raise HTTPException(422, error.message) from None
    return JSONResponse({"name": name, "link": request.state.origin + login_path(token)})


async def _revoke(page: PageContext, request: Request) -> Response:
    name = (await _body(page, request, _Name)).name
    if name not in await page.call(page.store.annotators):
        raise HTTPException(422, "there is no annotator of that name")
    await page.call(page.store.revoke, name)
    return JSONResponse({"name": name})


async def _body(page: PageContext, request: Request, kind: type[_Asked]) -> _Asked:
    await page.require(request, "admin")
    return read_as(kind, await json_body(request, BODY_LIMIT))
