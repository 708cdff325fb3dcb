"""Serving: continuous batching over the elastic cache (`Engine`), and the
OpenAI-compatible server on top of it (`moa serve`, `server.create_app`).

`sampling`, `text` (tokens to text), `packed` (a model on packed rows), `request`,
`engine` (the loop) know nothing of HTTP; `schema` (what requests may say), `api`
(endpoints), `server` (key, limits, page, uvicorn) do.
"""

from .engine import Engine, QueueFullError, StoppedError
from .request import Accepted, End, Piece, Request
from .sampling import Sampling

__all__ = [
    "Accepted",
    "End",
    "Engine",
    "Piece",
    "QueueFullError",
    "Request",
    "Sampling",
    "StoppedError",
]
