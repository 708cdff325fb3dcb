"""Attention of one layer on a CUDA device, beside what torch and JAX offer.

Shape and plan: Llama-3-8B (32 query heads, 8 KV heads, head size 128), layer 16
of its published plan, bf16. Parts, each a run of its own or together:

    prefill   the layer at N = 4096 to 65536
    d64       the same with heads of 64
    d256      8 heads of 256 in groups of 2
    cap, cap256, decode_cap   prefill, d256 and decode with a soft cap of 50
    dense     heads that see everything (alpha = 0, beta = 1)
    decode    batches of 1 to 64 sequences, 32 such layers
    multi     steps of 1 to 8 tokens a sequence, 32 such layers

What is timed and how stands atop gpu_prefill.py, gpu_decode.py, gpu_multi.py
and gpu_timing.py.
Outputs are checked against float64 rows first. Needs torch and triton with CUDA,
the package `moa`, and the artifacts of gpu_artifacts.py. The results are written
after each case, so that a run that ends early keeps what it has.
"""

import argparse
import sys
from pathlib import Path

import gpu_decode
import gpu_multi
import gpu_peers
import gpu_prefill
import record
import torch
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda
from gpu_timing import Timer

#: Artifact and plan of each part.
PARTS = {"prefill": ("one", "moa"), "d64": ("d64", "moa"), "d256": ("d256", "moa"),
         "cap": ("cap", "moa"), "cap256": ("cap256", "moa"), "dense": ("dense", "dense"),
         "decode": ("layers", "moa"), "decode_cap": ("layers_cap", "moa"),
         "multi": ("layers", "moa")}  # fmt: skip
CASES = {
    "prefill": "4096,8192,16384,32768,65536", "d64": "8192,16384,32768,65536",
    "d256": "8192,32768", "cap": "8192,32768", "cap256": "8192,32768",
    "dense": "8192,32768", "decode": "1x8192,1x65536,16x8192,64x8192,16x32768",
    "decode_cap": "1x8192,16x8192,16x32768", "multi": "1x8192,1x65536,16x8192",
}  # fmt: skip
PEERS = {
    "prefill": "cudnn,flash2,flex,jax_mosaic", "d64": "cudnn,flash2", "dense": "cudnn",
    "d256": "cudnn,flash2,flex", "cap": "flex", "cap256": "flex",
    "decode": "cudnn,flash2,flex", "decode_cap": "", "multi": "",
}  # fmt: skip


def records_of(part, model, timer, case, names):
    """Records of one case, as they are measured."""
    plan = PARTS[part][1]
    if part in ("decode", "decode_cap", "multi"):
        batch, length = map(int, case.split("x"))
        if part == "multi":
            return gpu_multi.bench(model, timer, plan, batch, length)
        return gpu_decode.bench(model, timer, plan, batch, length, names)
    return gpu_prefill.bench(model, timer, plan, int(case), names)


def describe(found):
    return (gpu_prefill if found["kind"] == "prefill" else gpu_decode).describe(found)


def wrong(found):
    """Whether a record's output is further from float64 than rounding explains."""
    return found["who"] in ("ours", "flex") and found.get("max_rel_err", 0) > TOLERANCE


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/attention-gpu.json"))
    parser.add_argument("--commit", help="that the artifacts and the package are of")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--cases", help="of the one part named: lengths, or batch x length")
    parser.add_argument(
        "--peers", help=f"of {','.join(gpu_peers.MASK)}, or none; else each part's"
    )
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"--parts: expected some of {list(PARTS)}, found {sorted(unknown)}")
    if args.cases and len(args.parts) > 1:
        parser.error("--cases: expected one part in --parts, found several")
    if args.peers is not None:
        args.peers = [] if args.peers == "none" else args.peers.split(",")
        if unknown := set(args.peers) - set(gpu_peers.MASK):
            parser.error(f"--peers: expected some of {list(gpu_peers.MASK)} or none,"
                         f" found {sorted(unknown)}")  # fmt: skip
    return args


def main() -> int:
    args = parse()
    need_cuda()
    torch.manual_seed(0)
    paths = {part: need_artifact(args.artifacts, PARTS[part][0]) for part in args.parts}
    timer = Timer()
    file = None
    for part in args.parts:
        model = Model(paths[part])
        if file is None:
            print(torch.cuda.get_device_name(), model.chip, flush=True)
            file = record.new_file(
                "attention-gpu", torch.cuda.get_device_name(), chip=model.chip,
                commit=args.commit, packages=("moa", "torch", "triton", "jax"),
                setting={"shape": "llama-3-8b", "plan": "llama-3-8b-moa.json", "layer": 16},
            )  # fmt: skip
        allowed = [name for name in PEERS[part].split(",") if name]
        names = allowed if args.peers is None else [n for n in args.peers if n in allowed]
        for case in (args.cases or CASES[part]).split(","):
            with torch.no_grad():
                for found in records_of(part, model, timer, case, names):
                    file["records"].append(found)
                    print(describe(found), flush=True)
            record.write(file, args.output)
            torch.cuda.empty_cache()
    print(f"written to {args.output}")
    faults = [found for found in file["records"] if wrong(found)]
    for found in faults:
        print(f"error: {describe(found)}: expected at most {TOLERANCE}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
