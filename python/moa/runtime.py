"""The runtime: contexts, modules, caches, sequences, and `attend`.

Thin over the C ABI (moa/runtime.h); tensors come and go by DLPack. A context
is the CPU with its threads, or a CUDA device; a module is a loaded artifact, a
cache the pages of one module, a sequence its part of a cache, a batch sequences
that decode together by calls that can be captured in a CUDA graph, a scheduler
what decides which requests the next step feeds. Objects keep what they stand on
alive.
"""

from ._runtime import (
    Batch,
    Cache,
    Context,
    Module,
    Scheduler,
    Sequence,
    SpanRule,
    StepEntry,
    append,
    attend,
    resident_count,
    resident_pages,
    visible,
)

__all__ = [
    "Batch",
    "Cache",
    "Context",
    "Module",
    "Scheduler",
    "Sequence",
    "SpanRule",
    "StepEntry",
    "append",
    "attend",
    "resident_count",
    "resident_pages",
    "visible",
]
