"""An artifact on a device: calls, what its heads see, and rows in float64.

Everything here runs on the CPU too (`device="cpu"`), where calls are made at once
instead of captured.
"""

import math
import types

import torch

import moa

#: Largest error of a bf16 row against float64, relative to the row's norm.
TOLERANCE = 8e-3


def need_cuda():
    """Ends the program with a message where torch has no CUDA device."""
    if not torch.cuda.is_available():
        raise SystemExit(
            f"error: expected a CUDA device, torch {torch.__version__} sees none; "
            "run this on a machine with an NVIDIA GPU and torch built for CUDA"
        )


def need_artifact(folder, name):
    """Path of an artifact of gpu_artifacts.py."""
    path = folder / f"{name}.moa"
    if not path.is_file():
        raise SystemExit(
            f"error: expected the artifact {path}, found none; make it with "
            f"test/bench/gpu_artifacts.py --output {folder}"
        )
    return path


class Model:
    """A loaded artifact."""

    def __init__(self, path, device="cuda"):
        self.device = device
        self.context = moa.runtime.Context(device=device)
        self.module = moa.runtime.Module(self.context, str(path))
        info = self.module.info
        self.layers, self.dim = info["layers"], info["head_dim"]
        self.q_heads, self.kv_heads = info["q_heads"], info["kv_heads"]
        self.group = self.q_heads // self.kv_heads
        self.soft_cap = info["soft_cap"]  # 0 for none.
        self.chip = info["chip"]
        self.per_row = info["length"] == "row"
        self.rules = [
            [self.module.rule(layer, head) for head in range(self.q_heads)]
            for layer in range(self.layers)
        ]

    def stream(self):
        return torch.cuda.current_stream().cuda_stream if self.device == "cuda" else 0

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def randn(self, *shape, generator=None):
        return torch.randn(
            *shape, device=self.device, dtype=torch.bfloat16, generator=generator
        )  # fmt: skip

    def attend(self, cache, layer, entries):
        moa.runtime.attend(cache, layer, entries, stream=self.stream())

    def captured(self, run):
        """`run` as a graph, to be replayed; on the CPU `run` itself."""
        if self.device != "cuda":
            return run
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay

    def call(self, run):
        """`run` captured, as a `gpu_graph.Call`; on the CPU one that only replays."""
        if self.device != "cuda":
            return types.SimpleNamespace(replay=run)
        from gpu_graph import Call

        return Call(run)

    def case(self, **more):
        """Keys of a record that tell of the artifact."""
        cap = {"soft_cap": self.soft_cap} if self.soft_cap else {}
        return {"dtype": "bf16", "q_heads": self.q_heads, "kv_heads": self.kv_heads,
                "head_dim": self.dim, **cap, **more}  # fmt: skip

    def visible(self, layer, head, length, rows):
        """Keys that each of `rows` (float64) sees, under the length rule `request`."""
        rule = self.rules[layer][head]
        start = torch.clamp(rows + 1 - rule.local(length), min=0)
        behind = (rows + 1 - start) + torch.clamp(rows + 1, max=rule.sink)
        return torch.where(start <= rule.sink, rows + 1, behind)

    def pairs(self, layer, length):
        """Visible (query, key) pairs of a whole prompt."""
        rows = torch.arange(length, dtype=torch.float64)
        return sum(
            float(self.visible(layer, head, length, rows).sum()) for head in range(self.q_heads)
        )

    def needed_bytes(self, layer, length):
        """Bytes of keys and values that the last row of a sequence needs: for each
        KV head, the longest span of its group."""
        last = torch.tensor([length - 1.0], dtype=torch.float64)
        keys = sum(
            max(float(self.visible(layer, g * self.group + i, length, last))
                for i in range(self.group))
            for g in range(self.kv_heads)
        )  # fmt: skip
        return int(2 * keys * self.dim * 2)

    def start(self, layer, head, length, row, resident):
        """First key behind the sink that a row sees: `resident` is the first one
        that its KV head still held before the row came."""
        rule = self.rules[layer][head]
        if self.per_row:  # A key that left the window stays out.
            return max(resident, *(i + 1 - rule.local(i + 1) for i in range(row + 1)), 0)
        return max(0, row + 1 - rule.local(length), resident)

    def error(self, layer, length, q, k, v, out, rows, *, first=0, resident=None, heads=None):
        """Largest error of rows against float64, relative to the row's norm. q and
        out begin at row `first`, k and v at 0; `resident`: of each KV head."""
        worst = 0.0
        keys = torch.arange(len(k), device=k.device)
        sink = self.rules[layer][0].sink
        for row in rows:
            for head in heads or range(self.q_heads):
                group = head // self.group
                start = self.start(layer, head, length, row, resident[group] if resident else 0)
                seen = (keys <= row) & ((keys < sink) | (keys >= start))
                scores = k[seen, group].double() @ q[row - first, head].double()
                scores /= math.sqrt(self.dim)
                if self.soft_cap:
                    scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
                p = torch.softmax(scores, 0)
                want = p @ v[seen, group].double()
                error = float((out[row - first, head].double() - want).norm() / want.norm())
                worst = max(worst, error) if error == error else math.inf
        return worst
