"""The server: endpoints, health, metrics and the page as one application, and
uvicorn that runs it.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from .._runtime import __version__
from ..errors import Error
from .api import Api, ApiError, Settings, as_api_error
from .engine import Engine, StoppedError
from .guards import LimitBody, RequireKey
from .schema import Refused, explain

PAGE = Path(__file__).with_name("page.html")
#: Seconds that answers under way have when the server is told to end.
GRACE_SECONDS = 5


def create_app(engine: Engine, tokenizer: Any, settings: Settings) -> FastAPI:
    """The application; the engine is to be started and stopped by the caller."""
    app = FastAPI(title="moa serve", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(Api(engine, tokenizer, settings).router)
    if settings.api_key:
        app.add_middleware(RequireKey, key=settings.api_key)
    app.add_middleware(LimitBody, max_bytes=settings.max_body)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text())

    @app.get("/health")
    async def health() -> JSONResponse:
        if engine.running:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "stopped", "reason": str(engine.failure)}, 503)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(await asyncio.to_thread(engine.prometheus))

    _add_errors(app)
    return app


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    async def known(http: HttpRequest, error: Exception) -> JSONResponse:
        return (error if isinstance(error, ApiError) else as_api_error(error)).response()

    async def invalid(http: HttpRequest, error: RequestValidationError) -> JSONResponse:
        message, where = explain(error.errors())
        return ApiError(400, message, "invalid_value", where).response()

    async def other(http: HttpRequest, error: HTTPException) -> JSONResponse:
        message = f"{http.method} {http.url.path}: {error.detail}"
        code = {404: "not_found", 405: "method_not_allowed"}.get(
            error.status_code, "invalid_value"
        )
        return ApiError(error.status_code, message, code).response()

    async def unforeseen(http: HttpRequest, error: Exception) -> JSONResponse:
        message = f"the server failed at this request ({error!r}); its log says where"
        return ApiError(500, message, "server_failed").response()

    for kind in (ApiError, Error, Refused, StoppedError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, other)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unforeseen)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to host and port, 0 for a free one. OSError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def serve(app: FastAPI, bound: socket.socket, log_level: str = "warning") -> None:
    """Runs until SIGINT (then KeyboardInterrupt) or SIGTERM."""
    config = uvicorn.Config(
        app, log_level=log_level, timeout_graceful_shutdown=GRACE_SECONDS, lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[bound])
