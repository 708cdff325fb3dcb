"""OpenAI's endpoints over an `Engine`: /v1/models, /v1/chat/completions,
/v1/completions.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import jinja2
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ..errors import OutOfPagesError, OutOfRangeError
from .engine import Engine, QueueFullError, StoppedError
from .forms import Form, error_object, sse
from .request import End, Event, Piece, Request
from .schema import ChatRequest, CompletionRequest, Generation, Refused

#: OpenAI's default of max_tokens for completions.
COMPLETION_TOKENS = 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """name: of the model, as clients say it. api_key: what clients must show, or None.
    max_new_tokens: of a chat request that says nothing. max_body: bytes of a request.
    """

    name: str
    api_key: str | None = None
    max_new_tokens: int = 1024
    max_body: int = 4 << 20


class ApiError(Exception):
    """An answer that is an error in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def response(self) -> JSONResponse:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        body = error_object(str(self), kind, self.param, self.code)
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse(body, self.status, headers)


def as_api_error(error: Exception) -> ApiError:
    """The answer to what the engine said."""
    if isinstance(error, OutOfRangeError):
        return ApiError(400, str(error), "context_length_exceeded")
    if isinstance(error, OutOfPagesError):
        return ApiError(400, str(error), "kv_memory_exceeded")
    if isinstance(error, QueueFullError):
        return ApiError(429, str(error), "queue_full")
    if isinstance(error, StoppedError):
        return ApiError(503, str(error), "engine_stopped")
    if isinstance(error, Refused):
        return ApiError(400, str(error), "invalid_value", error.param)
    return ApiError(500, f"the engine failed: {error}", "engine_failed")


def _why(end: End) -> ApiError:
    """Why a request has no answer."""
    if end.reason == "failed":
        return ApiError(500, f"the engine failed: {end.error}", "engine_failed")
    return as_api_error(end.error or StoppedError("cancelled, as the engine is stopping"))


class Answer:
    """A request under way: its events, in the server's event loop."""

    def __init__(self, engine: Engine, request: Request, http: HttpRequest) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

        def sink(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed.
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._engine = engine
        self._number = engine.submit(request, sink)
        self._watch = asyncio.create_task(self._until_disconnect(http))

    async def begin(self) -> None:
        """Waits until the request is taken in; raises why it is not."""
        event = await self._events.get()
        if isinstance(event, End):
            self.close()
            raise _why(event)

    async def __aiter__(self) -> AsyncIterator[Piece | End]:
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, Piece | End):
                    yield event
                if isinstance(event, End):
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Whoever reads this has gone, or has all."""
        self._watch.cancel()
        self._engine.cancel(self._number)

    async def _until_disconnect(self, http: HttpRequest) -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        self._engine.cancel(self._number)


class Api:
    """engine: running; tokenizer: of its model."""

    def __init__(self, engine: Engine, tokenizer: Any, settings: Settings) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.created = int(time.time())
        self._encoding = threading.Lock()  # Fast tokenizers are not for two threads.
        self.router = APIRouter(prefix="/v1")
        self.router.add_api_route("/models", self.models, methods=["GET"])
        self.router.add_api_route("/models/{name:path}", self.model, methods=["GET"])
        self.router.add_api_route("/chat/completions", self.chat, methods=["POST"])
        self.router.add_api_route("/completions", self.complete, methods=["POST"])

    async def models(self) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, name: str) -> JSONResponse:
        self._check_name(name)
        return JSONResponse(self._card())

    async def chat(self, http: HttpRequest, body: ChatRequest) -> Response:
        body.refuse()
        self._check_name(body.model)
        messages = [message.plain() for message in body.messages]
        prompt = await asyncio.to_thread(self._encode_chat, messages)
        asked = body.max_completion_tokens or body.max_tokens
        return await self._answer(http, body, prompt, asked, chat=True)

    async def complete(self, http: HttpRequest, body: CompletionRequest) -> Response:
        body.refuse()
        self._check_name(body.model)
        prompt = await asyncio.to_thread(self._encode, body.single())
        asked = body.max_tokens or COMPLETION_TOKENS
        return await self._answer(http, body, prompt, asked, chat=False)

    def _card(self) -> dict[str, Any]:
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self.created,
            "owned_by": "local",
            "max_model_len": self.engine.max_length,
            "chat": bool(self.tokenizer.chat_template),
        }

    def _check_name(self, name: str | None) -> None:
        if name not in (None, "", self.settings.name):
            raise ApiError(
                404,
                f"the model '{name}' is not here; this server has '{self.settings.name}'",
                "model_not_found",
                "model",
            )

    def _encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        if not self.tokenizer.chat_template:
            raise Refused(
                "the model's tokenizer has no chat template: use /v1/completions", "messages"
            )
        try:
            with self._encoding:
                encoded = self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, return_dict=True
                )
        except jinja2.TemplateError as error:
            raise Refused(f"the chat template refuses: {error}", "messages") from error
        return list(encoded["input_ids"])

    def _encode(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            with self._encoding:
                return list(self.tokenizer(prompt)["input_ids"])
        size = len(self.tokenizer)
        wrong = [token for token in prompt if not 0 <= token < size]
        if wrong:
            raise Refused(f"token {wrong[0]} is not one of 0 to {size - 1}", "prompt")
        return prompt

    async def _answer(
        self,
        http: HttpRequest,
        body: Generation,
        prompt: list[int],
        asked: int | None,
        chat: bool,
    ) -> Response:
        room = self.engine.max_length - len(prompt)
        request = Request(
            prompt,
            asked or max(1, min(self.settings.max_new_tokens, room)),
            body.sampling(),
            body.stops(),
            bool(body.ignore_eos),
        )
        form = Form(chat, self.settings.name, len(prompt), body.wants_usage)
        answer = Answer(self.engine, request, http)
        await answer.begin()
        if body.stream:
            return StreamingResponse(
                _chunks(answer, form),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        text, end = "", None
        async for event in answer:
            if isinstance(event, Piece):
                text += event.text
            else:
                end = event
        assert end is not None
        if end.reason not in ("stop", "length"):
            raise _why(end)
        return JSONResponse(form.whole(text, end))


async def _chunks(answer: Answer, form: Form) -> AsyncIterator[bytes]:
    """An answer as server-sent events."""
    for chunk in form.first():
        yield sse(chunk)
    async for event in answer:
        if isinstance(event, Piece):
            if event.text:
                yield sse(form.piece(event.text))
        elif event.reason in ("stop", "length"):
            for chunk in form.last(event):
                yield sse(chunk)
        else:
            error = _why(event)
            yield sse(error_object(str(error), "server_error", None, error.code))
    yield sse("[DONE]")
