"""SmolLM2-135M on a CUDA device under the demo's plan, token by token.

Generates greedily in bf16 or f32 with compiled kernels over the elastic cache,
and with transformers' eager attention under an explicit mask for each head, on
the same device. Two computations differ by rounding: they agree up to the first
place where the best two tokens are nearly tied; in f32 hardly any are. Prints
that place, the gap of the reference's logits there, and tokens/s; exits 1 if a
difference is not at a near-tie, or the cache does not hold its closed form.

MODEL is a folder or a .gguf file of SmolLM2-135M-Instruct.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import record
import torch
import transformers
from gpu_model import need_cuda

import moa
import moa.hf

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples/04-hf-smollm2"
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
#: Logits of bf16 have steps of 1/8 at 16 to 32, those of f32 of 2^-19; weights
#: and sums round too.
NEAR_TIE = {"bf16": 0.5, "f32": 1e-3}


def reference_class():
    spec = importlib.util.spec_from_file_location("reference", DEMO / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Reference


def generate(model, inputs, new, **options):
    """Tokens, the step's logits, and seconds of the whole."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        out = model.generate(
            **inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False,
            output_logits=True, return_dict_in_generate=True, **options,
        )  # fmt: skip
    torch.cuda.synchronize()
    prompt = inputs["input_ids"].shape[1]
    seconds = time.perf_counter() - start
    return out.sequences[0, prompt:].tolist(), torch.stack(out.logits)[:, 0], seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--plan", type=Path, default=ROOT / "examples/plans/smollm2-135m.json")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--artifact", type=Path, help="of the plan and type, for this device")
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--commit", help="of the checkout, for the record")
    args = parser.parse_args()
    need_cuda()
    transformers.logging.set_verbosity_error()
    torch.set_float32_matmul_precision("highest")
    options = {"dtype": DTYPES[args.dtype], "device_map": "cuda"}
    source = args.model
    if source.suffix == ".gguf":
        options["gguf_file"] = source.name
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
        source = source.parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        source, **{k: v for k, v in options.items() if k == "gguf_file"}
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(source, **options).eval()
    text = (DEMO / "prompt.txt").read_text()
    message = f"{text}\n\nSummarise the story above in a few sentences."
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    ).to("cuda")  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    pad = {"pad_token_id": tokenizer.eos_token_id}

    reference_class()(args.plan, prompt + args.new).use(model)
    generate(model, inputs, 4, **pad)
    expected, logits, reference_s = generate(model, inputs, args.new, **pad)

    artifact = moa.Artifact(path=args.artifact, stats={}) if args.artifact else None
    model = moa.hf.load(model, plan=str(args.plan), artifact=artifact)
    generate(model, inputs, 4, past_key_values=moa.hf.Cache(model), **pad)
    cache = moa.hf.Cache(model)
    tokens, _, ours_s = generate(model, inputs, args.new, past_key_values=cache, **pad)

    file = record.new_file(
        "smollm2-gpu", torch.cuda.get_device_name(), chip=model.moa.info["chip"],
        commit=args.commit, packages=("moa", "torch", "transformers"),
        setting={"model": "SmolLM2-135M-Instruct", "plan": args.plan.name},
    )  # fmt: skip
    case = {"kind": "generate", "mask": "plan", "method": "wall", "dtype": args.dtype,
            "prompt": prompt, "new": args.new}  # fmt: skip
    equal, gap = args.new, None
    for place, (ours, theirs) in enumerate(zip(tokens, expected, strict=True)):
        if ours != theirs:
            row = logits[place].float()
            equal, gap = place, float(row[theirs] - row[ours])
            break
    file["records"] = [
        {**case, "who": "ours", "tokens_per_s": args.new / ours_s, "equal_tokens": equal,
         "gap_at_difference": gap, "kv_bytes": cache.kv_bytes,
         "closed_form_bytes": cache.closed_form_bytes, "dense_bytes": cache.dense_bytes},
        {**case, "who": "reference", "tokens_per_s": args.new / reference_s},
    ]  # fmt: skip
    print(tokenizer.decode(tokens))
    for found in file["records"]:
        print(found)
    name = "smollm2-gpu.json" if args.dtype == "bf16" else f"smollm2-gpu-{args.dtype}.json"
    print(f"written to {record.write(file, args.output / name)}")
    near = gap is None or gap <= NEAR_TIE[args.dtype]
    good = near and cache.kv_bytes == cache.closed_form_bytes
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
