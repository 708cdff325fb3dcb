"""A model's files that are missing, damaged or of another kind: one line and the cure."""

import json
import shutil

import pytest
import torch
import transformers

import moa.hf
from moa import modelfiles
from moa.cli import main
from moa.errors import InvalidArgumentError, ModelFileError, OutOfMemoryError
from served import PLAN, save

DAMAGED = "its files are incomplete, damaged, or do not belong together: fetch them again"
FORMS = "expected a folder, a .gguf file, or a hub id such as org/name"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "tiny")


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "name", ["/no/such/model", "./models/x", "a/b/c", "not a model!!", "", "models/"]
)
def test_no_model_there(name):
    with pytest.raises(ModelFileError, match="no model at '.*'; expected a folder"):
        moa.hf.load(name, plan=PLAN)
    with pytest.raises(OSError):
        modelfiles.load_config(name)


def test_a_folder_or_a_file_that_is_no_model(tmp_path):
    with pytest.raises(ModelFileError, match=f"holds no config.json, so no model; {FORMS}"):
        modelfiles.load_tokenizer(tmp_path)
    file = tmp_path / "model.bin"
    file.write_text("")
    with pytest.raises(ModelFileError, match=f"is a file, and no .gguf file; {FORMS}"):
        modelfiles.load_config(file)
    with pytest.raises(ModelFileError, match="is not a file; expected a .gguf file"):
        moa.hf.load(tmp_path / "model.gguf", plan=PLAN)


@pytest.mark.parametrize("content", [b"", b"GGUFxxxxxxx", b"GGUF" + bytes(1000), b"text"])
def test_a_damaged_gguf_file(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=f"model.gguf cannot be loaded: .*; {DAMAGED}"):
        moa.hf.load(path, plan=PLAN)


def test_a_file_named_inside_a_folder(saved, tmp_path):
    inner = shutil.copytree(saved, tmp_path / "some" / "tiny")
    loaded = moa.hf.load(inner.parent, plan=PLAN, subfolder="tiny", threads=1)
    assert loaded.moa.info["layers"] == 2
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        moa.hf.load(inner.parent, plan=PLAN, gguf_file="absent.gguf")


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def break_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_config(folder):
    (folder / "config.json").write_text('{"model_type": ')


def mix_models(folder):
    change_config(folder, num_key_value_heads=1)


@pytest.mark.parametrize(
    "damage", [remove_weights, break_weights, cut_weights, cut_config, mix_models]
)
def test_a_damaged_folder_is_one_line(folder, damage, capsys):
    damage(folder)
    with pytest.raises(ModelFileError, match=f"tiny cannot be loaded: .+; {DAMAGED}"):
        moa.hf.load(folder, plan=PLAN)
    assert main(["generate", str(folder), "--prompt", "a"]) == 1
    assert f"moa: error: {folder} cannot be loaded: " in capsys.readouterr().err.split("\n")[-2]


def test_no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelFileError, match=DAMAGED):
        modelfiles.load_tokenizer(folder)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            OSError("We couldn't connect to the hub.\n\nCheck your connection, see here."),
            ModelFileError,
            "org/name cannot be loaded: We couldn't connect to the hub.; expected a folder, a "
            ".gguf file, or a hub id such as org/name; without a network, fetch it elsewhere",
        ),
        (
            ImportError("x needs the package y"),
            ModelFileError,
            "x needs the package y; pip install 'moa-mlir[hf]', and what else is named here",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
            OutOfMemoryError,
            "org/name does not fit in memory (CUDA out of memory. Tried to allocate 9 GiB); "
            "load it in half precision",
        ),
        (AssertionError(), ModelFileError, "cannot be loaded: AssertionError(); "),
    ],
)
def test_what_transformers_says(monkeypatch, error, kind, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(kind) as raised:
        moa.hf.load("org/name", plan=PLAN)
    assert message in str(raised.value) and raised.value.__cause__ is error


def test_a_length_beyond_the_model(saved, capsys):
    with pytest.raises(
        InvalidArgumentError, match="max_length is 1025, .*max_position_embeddings 1024: ask"
    ):
        moa.hf.load(saved, plan=PLAN, max_length=1025)
    options = ["--plan", "dense", "--prompt", "a", "--max-length", "2k"]
    assert main(["generate", str(saved), *options]) == 1
    assert "max_length is 2048" in capsys.readouterr().err
