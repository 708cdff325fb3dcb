"""Text of a growing list of tokens: no character by halves, stop strings found
wherever tokens cut them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Tokens before a text that decide how its first token is written, such as with a
#: space in front.
CONTEXT = 6
#: Tokens that a character may take; more without one are bytes that mean nothing.
LONGEST_CHARACTER = 4
INCOMPLETE = "\ufffd"


class TextStream:
    """tokenizer: of transformers. context: the prompt's tokens. stops: strings that
    end the text and are not part of it.
    """

    def __init__(
        self, tokenizer: Any, context: Sequence[int] = (), stops: Sequence[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context[-CONTEXT:])
        self._start, self._read = 0, len(self._ids)
        self._stops = tuple(stops)
        self._held = ""
        #: Whether a stop string came; nothing may be pushed after it.
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now: of this token, and what was held back."""
        self._ids.append(token)
        return self._release(self._decode(final=False))

    def finish(self) -> str:
        """What is held back when no token follows."""
        if self.stopped:
            return ""
        text = self._release(self._decode(final=True))
        text, self._held = text + self._held, ""
        return text

    def _decode(self, final: bool) -> str:
        """Text of the tokens behind those read, once it is whole."""
        before = self._text(self._ids[self._start : self._read])
        now = self._text(self._ids[self._start :])
        if now.endswith(INCOMPLETE):
            if not final and len(self._ids) - self._read < LONGEST_CHARACTER:
                return ""
            self._start = self._read = len(self._ids)
        else:
            self._start, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _release(self, piece: str) -> str:
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with, short of all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
