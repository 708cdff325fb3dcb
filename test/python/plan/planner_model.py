"""A tiny model and tokenizer on disk, for tests of the planner that run a model."""

from pathlib import Path

import tokenizers
import torch
import transformers

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


def words():
    """A tokenizer of bytes: every text has ids."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>")


def save(folder: Path, template=TEMPLATE, **changes) -> Path:
    """Writes model and tokenizer to a folder; `changes` go to the config."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(SIZES | changes)))
    model.save_pretrained(folder)
    tokenizer = words()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
