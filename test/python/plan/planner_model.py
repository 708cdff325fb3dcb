"""A tiny model and tokenizer on disk, and fixtures of the tests that run it: a test
module takes those it wants as names of its own.
"""

from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from moa.plan.cli import main

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
#: Two layers, four query heads over two KV heads.
SIZES = dict(
    vocab_size=384, hidden_size=256, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=64,
    max_position_embeddings=1024, initializer_range=0.2,
    bos_token_id=0, eos_token_id=None, pad_token_id=0,
)  # fmt: skip

#: Options for items that a model of random weights has.
FEW = ["--budget", "8", "--max-ce", "12", "--sink", "16"]


@pytest.fixture
def one_thread():
    """torch alone on one thread: models are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of the model."""
    return save(tmp_path_factory.mktemp("tiny"))


def refused(capsys, command, *parts):
    """The command must exit with 2; its last line, the only error, has all parts."""
    assert main(command) == 2
    *progress, last = capsys.readouterr().err.splitlines()
    assert last.startswith("moa-plan: error: "), last
    assert not any("error" in line for line in progress)
    for part in parts:
        assert part in last, last


def words():
    """A tokenizer of bytes: every text has ids."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>")


def save(folder: Path, template=TEMPLATE, kind="Llama", **changes) -> Path:
    """Writes model and tokenizer to a folder; `changes` go to the config."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(SIZES | changes))
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer = words()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
