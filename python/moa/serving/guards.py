"""What stands before the endpoints: the API key, and the most bytes of a request."""

from __future__ import annotations

import hmac

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .forms import error_object


class RequireKey:
    """Lets no request to /v1 through without `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self._wanted = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            found = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(found, self._wanted):
                body = error_object(
                    "the API key is missing or wrong; send 'Authorization: Bearer KEY'",
                    "invalid_request_error",
                    None,
                    "invalid_api_key",
                )
                await JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})(
                    scope, receive, send
                )
                return
        await self.app(scope, receive, send)


class LimitBody:
    """Reads a request's body whole, and refuses one that is too long."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = b"", True
        too_long = told.isdigit() and int(told) > self.max_bytes
        while more and not too_long:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            too_long = len(body) > self.max_bytes
        if too_long:
            error = error_object(
                f"the request has more than {self.max_bytes} bytes, as many as this server "
                "takes: shorten it",
                "invalid_request_error",
                None,
                "request_too_large",
            )
            await JSONResponse(error, 413, {"Connection": "close"})(scope, receive, send)
            return
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        await self.app(scope, replay, send)
