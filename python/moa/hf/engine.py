"""What the layers of one model share: the loaded artifact and its device."""

from __future__ import annotations

import functools
import warnings

import torch

from .. import runtime

#: Tokens to generate that are assumed where a caller did not say.
DEFAULT_BUDGET = 1024


class Engine:
    """A module in memory, ready to make caches."""

    def __init__(self, artifact, threads: int = 0, device: str = "cpu"):
        self.artifact = artifact
        self.context = runtime.Context(threads, device=device)
        self.module = runtime.Module(self.context, str(artifact.path))
        self.info = self.module.info
        if self.info["remark"]:
            warnings.warn(f"{artifact.path}: {self.info['remark']}", stacklevel=3)
        self.layers = self.info["layers"]
        #: Engines that are equal in it read each other's caches.
        facts = ("plan_id", "dtype", "layers", "q_heads", "kv_heads", "head_dim", "soft_cap")
        self.key = (self.context.device, *(self.info[fact] for fact in facts))
        width = 4 if self.info["dtype"] == "f32" else 2
        #: Of 64 tokens of a KV head, keys and values.
        self.page_bytes = 2 * 64 * self.info["head_dim"] * width
        #: Of each layer the window of the model's own that bounds its spans, or None.
        self.windows = [self.module.rule(i, 0).most or None for i in range(self.layers)]

    def __deepcopy__(self, memo):
        # Nothing in here changes, so copies of a model share it.
        return self

    @functools.cached_property
    def is_dense(self) -> bool:
        """Whether every head sees everything, so that no key is ever given up."""
        most = self.info["max_length"]
        return all(
            self.module.rule(layer, head).span(most) >= most
            for layer in range(self.layers)
            for head in range(self.info["q_heads"])
        )

    def clamp(self, length: int) -> int:
        """A length the artifact can take."""
        return min(length, self.info["max_length"])

    def stream(self) -> int:
        """The stream that torch works on now; 0 on the CPU."""
        if self.context.device == "cpu":
            return 0
        return torch.cuda.current_stream(self.context.device).cuda_stream
