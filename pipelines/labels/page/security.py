"""Access rules of the label page, and the security headers of its responses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.data.strict_json import strict_json

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; report-uri /csp-report"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""On every answer; a handler may set another Cache-Control."""
CUSTOM_HEADER = "X-RLHF"
REPORT_PATH = "/csp-report"
BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
_DRAINED = 4 << 20
"""A body that is too large is read to its end up to here, so that the answer arrives; beyond, the line is cut."""


class Guard:
    """ASGI middleware: one of `origins` as Host, only own pages may post, security headers on every answer."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = {origin.partition("://")[2]: origin for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the page answer."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if has_body and message["status"] >= 400:  # what was not read of it is not waited for
                    headers["Connection"] = "close"
            await send(message)

        refusal = self._refusal(scope, headers)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the refusal of a request; None: it is allowed."""
        hosts = headers.getlist("host")
        origin = self._origins.get(hosts[0].lower()) if len(hosts) == 1 else None
        if origin is None:  # another name for this machine: a stale link, or DNS rebinding
            return PlainTextResponse("this page is not served under that address", 421)
        scope["state"] = {**scope.get("state", {}), "origin": origin}
        if scope["method"] in ("GET", "HEAD"):
            return None
        site = headers.get("sec-fetch-site")
        if scope["path"] == REPORT_PATH:  # the browser itself sends it, without our header and often without an origin
            return None if site in (None, "same-origin") else _refused(403, "this request came from another site")
        if headers.getlist("origin") != [origin] or site not in (None, "same-origin"):
            return _refused(403, "this request came from another site")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refused(415, "the body must be application/json")
        if headers.get(CUSTOM_HEADER) != "1":
            return _refused(403, f"the header {CUSTOM_HEADER} is missing")
        return None


def _refused(status: int, words: str) -> Response:
    return JSONResponse({"error": words}, status)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes; no more than that is ever held.

    Raises:
        HTTPException: 413: it is larger; 408: it took too long; 400: the client went away.
    """
    held, size = bytearray(), 0
    try:
        declared = int(request.headers.get("content-length", "0"))
        async with asyncio.timeout(BODY_SECONDS):
            if declared <= _DRAINED:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > _DRAINED:
                        break
                    if size <= limit:
                        held += chunk
    except TimeoutError:
        raise HTTPException(408, "the body took too long to arrive") from None
    except (ClientDisconnect, ValueError):
        raise HTTPException(400, "the body did not arrive whole") from None
    if max(size, declared) > limit:
        raise HTTPException(413, f"the body is larger than {limit // 1024} KB")
    return bytes(held)


async def json_body(request: Request, limit: int) -> Mapping[str, Any]:
    """The body as a JSON object.

    Raises:
        HTTPException: 413, 408, 400 as `read_body`; 422: it is no JSON object, or one that `strict_json` refuses.
    """
    body = await read_body(request, limit)
    try:
        data = strict_json(body.decode())
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"the body is no JSON object that can be read: {_short(error)}") from None
    if not isinstance(data, dict):
        raise HTTPException(422, "the body must be a JSON object")
    return data


def _short(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:80]
