"""`moa serve` under many streaming clients, beside one client at a time.

    python test/bench/serve_load.py MODEL --clients 32 --seconds 600 --output OUT.json

Starts the server, asks by the openai package with random prompts and lengths, closes
some streams half-way, and watches errors, memory and pages. One-by-one is measured
before and after. Exit code 1 on an error, a page that did not come back, memory that
grew by more than --growth from the second quarter to the last, or less than --ratio
times the tokens of one-by-one.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import openai
import record as records

#: Share of streams that a client closes half-way.
LEAVERS = 0.05
WORDS = [
    "river", "stone", "window", "garden", "letter", "morning", "music", "paper", "silver",
    "story", "mountain", "winter", "bread", "candle", "forest", "harbour", "island", "kitchen",
]  # fmt: skip
GAUGES = ("moa_serve_requests_running", "moa_serve_requests_waiting", "moa_cache_page_bytes")


class Server:
    """`moa serve` as a process of its own."""

    def __init__(self, model, options):
        command = [sys.executable, "-m", "moa.cli", "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not (found := re.search("at (http://[^ /]*)", self.process.stderr.readline())):
            if self.process.poll() is not None:
                sys.exit("error: the server did not start")
        self.address = found[1]

    def metrics(self):
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=120) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        }

    def resident(self):
        """Bytes of the process in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


class Load:
    """What clients did in one phase."""

    def __init__(self, server, clients, seconds, seed):
        self.server, self.clients, self.seconds, self.seed = server, clients, seconds, seed
        self.requests = self.tokens = self.left = 0
        self.first, self.between, self.errors, self.samples = [], [], [], []

    async def run(self):
        self.until = time.monotonic() + self.seconds
        began = time.monotonic()
        watch = asyncio.create_task(self.watch())
        api = openai.AsyncOpenAI(
            base_url=f"{self.server.address}/v1", api_key="none", max_retries=0, timeout=600
        )
        await asyncio.gather(*(self.client(api, n) for n in range(self.clients)))
        self.took = time.monotonic() - began
        watch.cancel()
        await api.close()
        return self

    async def client(self, api, number):
        chance = random.Random(1000 * self.seed + number)
        while time.monotonic() < self.until:
            try:
                await self.ask(api, chance)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    async def ask(self, api, chance):
        words = " ".join(chance.choices(WORDS, k=chance.randint(10, 100)))
        most, leaves = chance.randint(16, 128), chance.random() < LEAVERS
        began, came = time.monotonic(), 0
        stream = await api.chat.completions.create(
            model=self.name, messages=[{"role": "user", "content": f"A story: {words}"}],
            max_tokens=most, stream=True, stream_options={"include_usage": True},
            temperature=0.8, seed=chance.randrange(1 << 30), extra_body={"ignore_eos": True},
        )  # fmt: skip
        last = reason = None
        async for chunk in stream:
            now = time.monotonic()
            if chunk.choices and chunk.choices[0].delta.content:
                (self.first if last is None else self.between).append(now - (last or began))
                last, came = now, came + 1
                if leaves and came > most // 2:
                    await stream.close()
                    self.left += 1
                    self.tokens += came
                    return
            if chunk.choices and chunk.choices[0].finish_reason:
                reason = chunk.choices[0].finish_reason
            if chunk.usage:
                if (reason, chunk.usage.completion_tokens) != ("length", most):
                    raise AssertionError(f"{reason}, {chunk.usage}, asked for {most}")
                self.tokens += most
                self.requests += 1

    async def watch(self):
        began = time.monotonic()
        while True:
            values = await asyncio.to_thread(self.server.metrics)
            self.samples.append({
                "s": round(time.monotonic() - began, 1),
                "resident_mb": round(self.server.resident() / 2**20, 1),
                **{name.removeprefix("moa_"): int(values[name]) for name in GAUGES},
            })  # fmt: skip
            await asyncio.sleep(max(1.0, self.seconds / 100))

    def record(self):
        ranked = lambda values, share: sorted(values)[int(share * len(values))]
        at = lambda values, share: round(ranked(values, share), 3) if values else None
        return {
            "clients": self.clients, "seconds": round(self.took, 1),
            "requests": self.requests, "streams_closed_by_clients": self.left,
            "tokens": self.tokens, "tokens_per_s": round(self.tokens / self.took, 2),
            "first_token_median_s": at(self.first, 0.5),
            "first_token_p99_s": at(self.first, 0.99),
            "between_tokens_median_s": at(self.between, 0.5),
            "between_tokens_p99_s": at(self.between, 0.99), "errors": self.errors,
        }  # fmt: skip


def quarter(samples, which):
    """Median memory of a quarter of the samples, in MiB."""
    size = max(1, len(samples) // 4)
    part = samples[which * size : (which + 1) * size] if which < 3 else samples[-size:]
    return statistics.median(sample["resident_mb"] for sample in part or samples)


async def measure(server, args):
    with urllib.request.urlopen(f"{server.address}/v1/models") as answer:
        Load.name = json.load(answer)["data"][0]["id"]
    phases = [(1, args.single / 2), (args.clients, args.seconds), (1, args.single / 2)]
    loads = []
    for seed, (clients, seconds) in enumerate(phases):
        loads.append(await Load(server, clients, seconds, seed).run())
        print(json.dumps(loads[-1].record()), file=sys.stderr, flush=True)
    before, many, after = loads
    until = time.monotonic() + 60  # Streams that were closed end at the next step.
    while (values := server.metrics())["moa_cache_page_bytes"] and time.monotonic() < until:
        await asyncio.sleep(0.5)
    single = (before.tokens + after.tokens) / (before.took + after.took)
    return {
        "model": Load.name, "options": args.options,
        "one_by_one_tokens_per_s": round(single, 2),
        "together_tokens_per_s": round(many.tokens / many.took, 2),
        "ratio": round(many.tokens / many.took / single, 2),
        "page_bytes_at_end": int(values["moa_cache_page_bytes"]),
        "kv_limit_bytes": int(values["moa_serve_kv_limit_bytes"]),
        "most_page_bytes": int(values["moa_cache_page_high_water_bytes"]),
        "preemptions": int(values["moa_serve_preemptions_total"]),
        "resident_second_quarter_mb": quarter(many.samples, 1),
        "resident_last_quarter_mb": quarter(many.samples, 3),
        "most_running": max(sample["serve_requests_running"] for sample in many.samples),
        "most_waiting": max(sample["serve_requests_waiting"] for sample in many.samples),
        "phases": [load.record() for load in loads], "samples": many.samples,
    }  # fmt: skip


def form(found, device):
    """What `measure` found, in the form of all results."""
    before, many, after = found["phases"]
    file = records.new_file(
        "serve", device, packages=("torch", "transformers", "uvicorn"),
        setting={"model": found["model"], "options": " ".join(found["options"])},
    )  # fmt: skip
    common = {"kind": "serve", "who": "ours", "method": "wall", "mask": "plan"}
    for phase in (before, many, after):
        told = {key: value for key, value in phase.items() if key.endswith("_s")}
        file["records"].append(common | told | {
            "batch": phase["clients"], "us": 1e6 * phase["seconds"],
            "requests": phase["requests"], "errors": len(phase["errors"]),
            "closed_by_clients": phase["streams_closed_by_clients"],
        })  # fmt: skip
    file["records"][1] |= {
        "ratio_to_one_by_one": found["ratio"],
        "resident_second_quarter_mb": found["resident_second_quarter_mb"],
        "resident_last_quarter_mb": found["resident_last_quarter_mb"],
        "kv_limit_bytes": found["kv_limit_bytes"], "kv_most_bytes": found["most_page_bytes"],
        "kv_end_bytes": found["page_bytes_at_end"], "preemptions": found["preemptions"],
        "most_running": found["most_running"], "most_waiting": found["most_waiting"],
    }  # fmt: skip
    return file


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--single", type=float, default=40, help="seconds of one-by-one")
    parser.add_argument("--ratio", type=float, default=3.0)
    parser.add_argument("--growth", type=float, default=0.05, help="share of memory allowed")
    parser.add_argument("--device-name", default=records.processor(), help="for the record")
    parser.add_argument("--output", type=Path)
    args, args.options = parser.parse_known_args()
    server = Server(args.model, args.options)
    try:
        record = asyncio.run(measure(server, args))
    finally:
        server.stop()
    if args.output:
        records.write(form(record, args.device_name), args.output)
    print(json.dumps({k: v for k, v in record.items() if k not in ("phases", "samples")}))
    errors = [error for phase in record["phases"] for error in phase["errors"]]
    grew = record["resident_last_quarter_mb"] / record["resident_second_quarter_mb"] - 1
    faults = [
        text
        for wrong, text in [
            (errors, f"{len(errors)} errors, the first: {errors[:1]}"),
            (record["page_bytes_at_end"], "pages did not come back"),
            (grew > args.growth, f"memory grew by {100 * grew:.1f} %"),
            (record["ratio"] < args.ratio, f"less than {args.ratio} times one-by-one"),
        ]
        if wrong
    ]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
