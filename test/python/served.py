"""A tiny random model with a tokenizer of bytes, and a server of it in a thread."""

import contextlib
import threading
import time

import tokenizers
import torch
import transformers
import uvicorn
from tokenizers import decoders, models, pre_tokenizers

import moa.hf
from conftest import make_plan
from moa.serving import Engine
from moa.serving.server import Settings, create_app

TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no such role: ' + m.role) }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PLAN = make_plan(
    [[0.0, 0.0, -64.0, 64.0], [128.0, 32.0, 0.0, 0.0]],
    [[1.0, 0.25, 0.5, 0.25], [0.0, 0.25, 0.75, 0.25]],
    sink=16, block=16, min=32,
)  # fmt: skip
END = 256


def tokenizer():
    """A token a byte, and one that ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    out = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")
    assert len(out) == END + 1
    out.chat_template = TEMPLATE
    return out


def model(seed=0, kind="Llama", **changes):
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=END + 1, hidden_size=256, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=1024, initializer_range=0.3, eos_token_id=END,
        bos_token_id=None,
    )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**(sizes | changes))
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def save(folder, **changes):
    """The model and its tokenizer in a folder, which is returned."""
    model(**changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def planned(plan=PLAN, **changes):
    return moa.hf.load(model(**changes), plan=plan, threads=2)


@contextlib.contextmanager
def serving(loaded, settings=None, **options):
    """(base address, engine) of a server in a thread."""
    with Engine(loaded, tokenizer(), **options) as engine:
        app = create_app(engine, tokenizer(), settings or Settings("tiny"))
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}", engine
        finally:
            server.should_exit = True
            thread.join()


def idle(engine, seconds=10.0):
    """Waits until no request is left; the stats then."""
    until = time.monotonic() + seconds
    while True:
        stats = engine.stats()
        scheduler = stats["scheduler"]
        if scheduler["running"] == scheduler["waiting"] == 0 or time.monotonic() > until:
            return stats
        time.sleep(0.01)
