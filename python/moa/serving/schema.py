"""What a request's JSON may say: OpenAI's names, and what of them is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .sampling import Sampling

#: Most stop strings, and characters of one.
MOST_STOPS, LONGEST_STOP = 16, 256
#: Fields whose wish would be ignored; each is refused unless it wishes nothing.
_REFUSED = {
    "logprobs": "log probabilities are not provided",
    "top_logprobs": "log probabilities are not provided",
    "logit_bias": "logits cannot be biased",
    "frequency_penalty": "penalties are not provided",
    "presence_penalty": "penalties are not provided",
    "tools": "tools are not provided",
    "functions": "functions are not provided",
    "response_format": "the form of the text cannot be forced",
    "echo": "the prompt is not repeated",
    "suffix": "text is not inserted before a suffix",
    "audio": "audio is not provided",
    "prompt_logprobs": "log probabilities are not provided",
}
_NOTHING: tuple[Any, ...] = (None, 0, False, [], {}, "", {"type": "text"})


class Refused(ValueError):
    """A request is wrong; `param` is the field that says so."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def explain(errors: Sequence[dict[str, Any]]) -> tuple[str, str | None]:
    """What pydantic found wrong in a body, as one message, and the field."""
    first = errors[0]
    if first["type"] == "json_invalid":
        what = f"{first['ctx']['error']} at character {first['loc'][-1]}"
        return f"the body is not JSON ({what}); send one JSON object", None
    where = _field(first)
    if not where:
        return "expected a JSON object as body, sent as Content-Type: application/json", None
    # Of a field that may be of several kinds, pydantic says for each why it is not.
    told = dict.fromkeys(error["msg"] for error in errors if _field(error) == where)
    return f"{where}: {' or '.join(told)}", where


def _field(error: dict[str, Any]) -> str:
    """`messages.0.role`, of the body; parts of a field's kinds are left out."""
    parts = [str(part) for part in error["loc"][1:]]
    kinds = (part == "str" or part.startswith("list[") for part in parts)
    return ".".join(parts[: next((at for at, kind in enumerate(kinds) if kind), None)])


def check_text(text: str, field: str) -> str:
    """Refused for what no tokenizer takes: halves of characters (surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(
            f"{field} has half of a character (U+{ord(text[error.start]):04X}) at "
            f"{error.start}; send whole characters",
            field,
        ) from error
    return text


class StreamOptions(BaseModel):
    include_usage: bool = False


class Generation(BaseModel):
    """Fields that both endpoints have. Unknown ones are ignored, null is the default."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    ignore_eos: bool | None = False

    def refuse(self) -> None:
        """Refused for what would have to be ignored."""
        if self.n not in (None, 1):
            raise Refused(f"n is {self.n}; one choice a request is provided: leave n out", "n")
        if (self.model_extra or {}).get("best_of") not in (None, 1):
            raise Refused("best_of is not provided: leave it out", "best_of")
        for name, why in _REFUSED.items():
            if (self.model_extra or {}).get(name) not in _NOTHING:
                raise Refused(f"{why}: leave {name} out", name)

    def sampling(self) -> Sampling:
        """Refused for values out of range; defaults are OpenAI's."""
        given: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p}
        given |= {"top_k": self.top_k, "seed": self.seed}
        try:
            return Sampling(**{name: v for name, v in given.items() if v is not None})
        except ValueError as error:
            raise Refused(str(error), str(error).split(" ", 1)[0]) from error

    def stops(self) -> tuple[str, ...]:
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        found = [stop for stop in found if stop]
        if len(found) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in found):
            raise Refused(
                f"stop takes at most {MOST_STOPS} strings of {LONGEST_STOP} characters each",
                "stop",
            )
        return tuple(found)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class Part(BaseModel):
    type: str
    text: str | None = None


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[Part] | None = None

    def plain(self) -> dict[str, str]:
        """As a chat template takes it; Refused for what is not text."""
        if isinstance(self.content, list):
            other = [part.type for part in self.content if part.type != "text"]
            if other:
                raise Refused(
                    f"a message has a part of type {other[0]}; this server reads text alone",
                    "messages",
                )
            content = "".join(part.text or "" for part in self.content)
        else:
            content = self.content or ""
        plain = {"role": self.role, "content": content}
        return {key: check_text(text, "messages") for key, text in plain.items()}


class ChatRequest(Generation):
    """Body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)


class CompletionRequest(Generation):
    """Body of POST /v1/completions; prompt is text, or a list of token ids."""

    prompt: str | list[int] | list[str] | list[list[int]]

    def single(self) -> str | list[int]:
        """The one prompt; Refused for more."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            if len(prompt) > 1:
                raise Refused(
                    f"prompt has {len(prompt)} prompts; send a request for each", "prompt"
                )
            prompt = prompt[0]
        if not prompt:
            raise Refused("prompt is empty; expected text or tokens", "prompt")
        return check_text(prompt, "prompt") if isinstance(prompt, str) else prompt  # type: ignore[return-value]
