"""What answers look like: OpenAI's objects, whole and in chunks."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from .request import End

Json = dict[str, Any]


class Form:
    """One answer's objects; `chat` chooses between both endpoints'."""

    def __init__(self, chat: bool, model: str, prompt_tokens: int, usage: bool) -> None:
        self.chat, self.model, self.prompt_tokens = chat, model, prompt_tokens
        self._usage = usage  # Whether chunks tell of it.
        self.id = ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex
        self.created = int(time.time())

    def whole(self, text: str, end: End) -> Json:
        choice: Json = {"index": 0, "finish_reason": end.reason, "logprobs": None}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        kind = "chat.completion" if self.chat else "text_completion"
        return self._head(kind) | {"choices": [choice], "usage": self._count(end)}

    def first(self) -> list[Json]:
        """Chunks before any text."""
        if not self.chat:
            return []
        return [self._chunk({"delta": {"role": "assistant", "content": ""}}, None)]

    def piece(self, text: str) -> Json:
        return self._chunk({"delta": {"content": text}} if self.chat else {"text": text}, None)

    def last(self, end: End) -> list[Json]:
        """Chunks behind all text."""
        chunks = [self._chunk({"delta": {}} if self.chat else {"text": ""}, end.reason)]
        if self._usage:
            head = self._head("chat.completion.chunk" if self.chat else "text_completion")
            chunks.append(head | {"choices": [], "usage": self._count(end)})
        return chunks

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, part: Json, reason: str | None) -> Json:
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": reason}
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        chunk = head | {"choices": [choice]}
        return chunk | {"usage": None} if self._usage else chunk

    def _count(self, end: End) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": end.generated,
            "total_tokens": self.prompt_tokens + end.generated,
            "kv_bytes": end.kv_bytes,
            "dense_kv_bytes": end.dense_bytes,
        }


def error_object(message: str, kind: str, param: str | None, code: str | None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def sse(data: Json | str) -> bytes:
    """A server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()
