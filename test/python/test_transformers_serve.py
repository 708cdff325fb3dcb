"""transformers' own server with a model under a plan, asked by the openai package.

Its list of attention names is fixed, so the model is put under the plan where the
server loads it. It answers requests one by one; `moa serve` is what batches them.
"""

import socket
import time

import pytest
import torch

openai = pytest.importorskip("openai")
serve = pytest.importorskip("transformers.cli.serve")
from transformers.cli.serving.model_manager import ModelManager

import moa.hf
from served import PLAN, model, planned, save, tokenizer

MESSAGES = [{"role": "user", "content": "Say something. " * 25}]


@pytest.fixture
def address(tmp_path, monkeypatch):
    folder = save(tmp_path / "tiny")
    load, loaded = ModelManager.load_model_and_processor, []

    def load_planned(self, *arguments, **options):
        found, processor = load(self, *arguments, **options)
        if not hasattr(found, "moa"):
            loaded.append(moa.hf.load(found, plan=PLAN, threads=1))
        return found, processor

    monkeypatch.setattr(ModelManager, "load_model_and_processor", load_planned)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve.Serve(
        force_model=str(folder), device="cpu", dtype="float32", host="127.0.0.1", port=port,
        non_blocking=True, log_level="error",
    )  # fmt: skip
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/v1", str(folder)
    server.kill_server()
    assert len(loaded) == 1


def test_chat_under_a_plan(address):
    base, name = address
    client = openai.OpenAI(base_url=base, api_key="any", max_retries=0)
    ask = lambda **more: client.chat.completions.create(
        model=name, messages=MESSAGES, max_tokens=12, temperature=0, **more
    )
    ids = tokenizer().apply_chat_template(
        MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    want = planned().generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=256)
    text = tokenizer().decode(want[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert ask().choices[0].message.content == text
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True))
    assert streamed == text
    dense = model().generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=256)
    assert not torch.equal(dense, want)
