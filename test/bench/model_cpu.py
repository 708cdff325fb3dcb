"""Puts records of `moa bench --json` and of llamacpp.py in the form of all results.

    moa bench MODEL --lengths 512,2k,4k,7k --json > OURS.json
    python test/bench/llamacpp.py --lengths 512,2048,4096,7168 > PEER.json
    python test/bench/model_cpu.py OURS.json --peer PEER.json -o results/NAME.json

Prints what became of it as a table too.
"""

import argparse
import json
import sys
from pathlib import Path

import record


def measurements(line, who, mask, common):
    """Prefill and decode of one method at one length."""
    prompt, new = line["prompt_tokens"], common["new"]
    told = line.get(who, line)
    name = {"moa": "ours"}.get(who, who)
    case = common | {"who": name, "mask": mask, "prompt": prompt}
    held = {"kv_bytes": told["kv_bytes"]} if "kv_bytes" in told else {}
    per_s = {what: told[f"{what}_tokens_per_s"] for what in ("prefill", "decode")}
    return [
        case | held | {
            "kind": "prefill", "us": 1e6 * prompt / per_s["prefill"],
            "tokens_per_s": per_s["prefill"], "processor_s": told["prefill_cpu_s"],
        },
        case | held | {
            "kind": "decode", "us": 1e6 / per_s["decode"], "tokens_per_s": per_s["decode"],
            "processor_s": told["decode_cpu_ms_per_token"] / 1e3, "new": new,
        },
    ]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ours", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    ours = json.loads(args.ours.read_text())
    file = record.new_file(
        "model-cpu", record.processor(), packages=(),
        setting={
            "model": ours["model"], "plan_id": ours["plan_id"],
            "attention_threads": ours["attention_threads"],
            "torch_threads": ours["torch_threads"], "repeats": ours["repeats"],
        },
    )  # fmt: skip
    file["versions"] |= ours["versions"]
    common = {"method": "median", "dtype": ours["dtype"], "new": ours["new_tokens"]}
    for line in ours["results"]:
        file["records"] += measurements(line, "moa", "plan", common)
        file["records"] += measurements(line, "sdpa", "causal", common)
    if args.peer:
        peer = json.loads(args.peer.read_text())
        file["versions"] |= peer["versions"]
        file["setting"] |= {"llamacpp": f"{peer['model']}, {peer['threads']} threads"}
        common = {"method": "wall", "dtype": peer["dtype"], "new": peer["new_tokens"]}
        for line in peer["results"]:
            file["records"] += measurements(line, "llamacpp", "causal", common)
    record.write(file, args.output)
    print(f"{'who':>9} {'prompt':>6} {'':>7} {'tokens/s':>9} {'tokens/processor s':>18}")
    for line in sorted(file["records"], key=lambda r: (r["kind"], r["prompt"], r["who"])):
        tokens = line["prompt"] if line["kind"] == "prefill" else 1
        print(
            f"{line['who']:>9} {line['prompt']:6} {line['kind']:>7} "
            f"{line['tokens_per_s']:9.1f} {tokens / line['processor_s']:18.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
