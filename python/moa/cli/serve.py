"""Serve a model under a plan: OpenAI's API, and a page for trying it out at /.

GET /v1/models, POST /v1/chat/completions and /v1/completions, GET /health and
/metrics. Requests decode together over one elastic cache; each is let in when its
bytes are there.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

from ..plan.arguments import count, length, whole
from . import asking, models

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?) *([KMGT]i?)?B?", re.I)


def size(text: str) -> int:
    """Bytes: `2GiB`, `512M` or a number; factors of 1024."""
    match = _SIZE.fullmatch(text.strip())
    power = " kmgt".index(match[2][0].lower()) if match and match[2] else 0
    found = int(float(match[1]) * 1024**power) if match else 0
    if not 1 <= found < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected bytes, such as 2GiB, found '{text}'")
    return found


def port(text: str) -> int:
    """A port, 0 for any."""
    number = whole(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"expected a port of 0 to 65535, found '{text}'")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models.add_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=port, default=8000, help="0 for a free one")
    parser.add_argument(
        "--model-name", metavar="NAME", help="as clients say it; default MODEL's last part"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        type=asking.text,  # An unset variable of the shell must not mean: no key.
        default=os.environ.get("MOA_API_KEY") or None,
        help="that clients must show; default $MOA_API_KEY, or none",
    )
    parser.add_argument("--kv-memory", type=size, metavar="SIZE",
                        help="most of the KV cache, such as 2GiB; default half of what is free "
                        "on the CPU, 90 %% on a GPU")  # fmt: skip
    parser.add_argument("--max-running", type=count, default=64, metavar="R",
                        help="requests that run at a time; default 64")  # fmt: skip
    parser.add_argument(
        "--max-queue",
        type=count,
        default=256,
        metavar="Q",
        help="requests that wait beside them; more get 429; default 256",
    )
    parser.add_argument("--max-new-tokens", type=count, default=1024, metavar="M",
                        help="of a chat request that says nothing; default 1024")  # fmt: skip
    parser.add_argument("--max-body", type=size, default=4 << 20, metavar="SIZE",
                        help="of one request; more gets 413; default 4MiB")  # fmt: skip
    parser.add_argument("--chunk", type=length, default=512, metavar="N",
                        help="rows of one prompt in a step; default 512")  # fmt: skip
    parser.add_argument("--admission", choices=("optimistic", "reserved"), default="optimistic",
                        help="reserved: a running request never has to wait again")  # fmt: skip
    parser.add_argument("--prefix-reuse", action="store_true",
                        help="requests that begin alike compute that once; for plans with the "
                        "length rule row")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from ..serving import server
    from ..serving.api import Settings
    from ..serving.engine import Engine

    try:
        bound = server.listen(args.host, args.port)
    except OSError as error:
        raise OSError(
            f"cannot listen at {args.host}, port {args.port}: {error.strerror}; choose others "
            "by --host and --port"
        ) from error
    try:
        loaded = models.load(args)
        settings = Settings(
            args.model_name or loaded.name, args.api_key, args.max_new_tokens, args.max_body
        )
        limit = args.kv_memory
        if limit is None:
            limit = _free_memory() // 2 if loaded.model.device.type == "cpu" else 0
        with Engine(
            loaded.model,
            loaded.tokenizer,
            max_bytes=limit,
            max_sequences=args.max_running,
            max_waiting=args.max_queue,
            chunk_tokens=max(64, args.chunk),
            admission=args.admission,
            prefix_reuse=args.prefix_reuse,
        ) as engine:
            host, port = bound.getsockname()[:2]
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            pages = engine.stats()["pages"]  # Where none was asked for, the runtime's.
            limit = pages["pages_limit"] * pages["page_bytes"]
            bound.listen()  # From here on clients wait instead of being refused.
            print(
                f"moa: {settings.name} at http://{where}/v1, a page at http://{where}/; KV "
                f"cache at most {limit / 2**30:.2f} GiB",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            server.serve(server.create_app(engine, loaded.tokenizer, settings), bound)
    finally:
        bound.close()
    return 0


def _free_memory() -> int:
    """Bytes that the system could give without swapping."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
