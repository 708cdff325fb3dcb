"""What people put around a model: pipelines, PEFT, files, devices, versions."""

import gguf
import peft
import pytest
import torch
import transformers
from hf_modes import batch, generate, masked, prompt
from test_hf import GREEDY, PLAN, fresh
from tokenizers import Tokenizer, models, pre_tokenizers

import moa.hf
from moa.hf.versions import check_transformers

NEW = 12


@pytest.fixture(scope="module")
def tokenizer():
    words = {f"w{i}": i for i in range(199)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w3"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="w0", eos_token="w2", padding_side="left"
    )


def text(tokens, seed=1):
    return " ".join(f"w{t}" for t in prompt(tokens, seed=seed)[0].tolist())


def test_a_pipeline_writes_what_the_reference_writes(tokenizer):
    ours = moa.hf.load(fresh(), plan=PLAN, threads=2)
    write = transformers.pipeline("text-generation", model=ours, tokenizer=tokenizer)
    texts = [text(n, seed=n) for n in (210, 60)]
    options = dict(max_new_tokens=NEW, do_sample=False, return_full_text=False)
    found = write(texts, batch_size=2, **options)
    inputs = dict(tokenizer(texts, return_tensors="pt", padding=True))
    inputs.pop("token_type_ids", None)
    wanted = generate(masked(fresh(), PLAN, inputs, NEW), inputs, NEW, eos_token_id=2)
    said = [tokenizer.decode(row, skip_special_tokens=True) for row in wanted]
    assert [one[0]["generated_text"] for one in found] == said


def adapted(model):
    """The model with a LoRA adapter that changes what it says."""
    torch.manual_seed(4)
    lora = peft.LoraConfig(
        r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    return peft.get_peft_model(model, lora).eval()


@pytest.mark.parametrize("when", ["before", "after", "merged"])
def test_a_peft_model(when):
    """An adapter before or after load, and one that was merged."""
    if when == "after":
        ours = adapted(moa.hf.load(fresh(), plan=PLAN, threads=2))
    else:
        ours = adapted(fresh())
        ours = ours.merge_and_unload() if when == "merged" else ours
        ours = moa.hf.load(ours, plan=PLAN, threads=2)
    inputs = batch([prompt(210)])
    dense = adapted(fresh()).merge_and_unload()
    cache = moa.hf.Cache(ours)
    found = generate(ours, inputs, NEW, past_key_values=cache)
    assert torch.equal(found, generate(masked(dense, PLAN, inputs, NEW), inputs, NEW))
    assert not torch.equal(found, generate(masked(fresh(), PLAN, inputs, NEW), inputs, NEW))
    assert cache.get_seq_length() == 210 + NEW - 1


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_folder_of_safetensors(tmp_path, dtype):
    fresh().save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    ours = moa.hf.load(tmp_path, plan=PLAN, dtype=dtype, device_map="cpu", threads=2)
    assert ours.dtype == (dtype or torch.float32) and ours.moa.info["dtype"] != "f16"
    inputs = batch([prompt(120)])
    found = generate(ours, inputs, NEW)
    if dtype is None:
        assert torch.equal(found, generate(masked(fresh(), PLAN, inputs, NEW), inputs, NEW))


def write_gguf(path, model):
    """A Llama as a .gguf file in float32: its queries and keys are in pairs there."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    kind = gguf.MODEL_ARCH.LLAMA
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        for part, count in heads.items():
            if part in name:
                halves = weight.view(count, 2, -1, weight.shape[1])
                weight = halves.transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", fresh())
    ours = moa.hf.load(tmp_path / "tiny.gguf", plan=PLAN, threads=2)
    inputs = batch([prompt(210)])
    wanted = generate(masked(fresh(), PLAN, inputs, NEW), inputs, NEW)
    assert torch.equal(generate(ours, inputs, NEW), wanted)


def test_a_model_on_several_devices_is_refused():
    model = fresh()
    model.model.layers[1].to("meta")
    with pytest.raises(moa.errors.CompileError, match="spread over cpu, meta.*device_map"):
        moa.hf.load(model, plan=PLAN)


def test_what_is_not_a_model_is_refused():
    with pytest.raises(TypeError, match="got a Linear"):
        moa.hf.load(torch.nn.Linear(2, 2), plan=PLAN)
    with pytest.raises(moa.errors.WrongTypeError, match="or an artifact.*, got a Llama"):
        moa.hf.Cache(fresh())


@pytest.mark.parametrize("version", ["5.15.2", "4.57.1", "5.24.0", "6.0.0.dev0", "odd"])
def test_other_versions_of_transformers_are_refused(version):
    with pytest.raises(
        moa.errors.IncompatibleError, match="pip install 'transformers>=5.16,<5.24"
    ):
        check_transformers(version)


def test_versions_in_range_pass():
    for version in ("5.16.0", "5.17.3", "5.23.0", "5.23.0.dev0"):
        check_transformers(version)
    check_transformers()


def test_weights_of_attention_are_refused():
    ours = moa.hf.load(fresh(), plan=PLAN, threads=2)
    ids, refused = prompt(9), pytest.raises(moa.errors.UnsupportedError, match="never forms")
    with torch.no_grad(), refused:
        ours(ids, output_attentions=True)
    with refused:
        ours.generate(
            ids,
            max_new_tokens=2,
            output_attentions=True,
            return_dict_in_generate=True,
            **GREEDY,
        )
