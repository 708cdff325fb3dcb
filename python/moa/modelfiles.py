"""A model's files, as users name them: a folder, a .gguf file or a hub id. What
transformers says of files that it cannot read becomes one line with the cure.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import ModelFileError, OutOfMemoryError

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_FORMS = "expected a folder, a .gguf file, or a hub id such as org/name"


def load_config(name: str | Path) -> Any:
    """The model's config, without its weights."""
    import transformers

    return _load(transformers.AutoConfig, name, {})


def load_tokenizer(name: str | Path) -> Any:
    import transformers

    return _load(transformers.AutoTokenizer, name, {})


def load_weights(name: str | Path, **options: Any) -> Any:
    """A causal language model; weights of a .gguf file are dequantised. options go to
    from_pretrained."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)  # 5.16 has none: it always does so.
    if config and Path(name).suffix == ".gguf":
        options.setdefault("quantization_config", config(dequantize=True))
    return _load(transformers.AutoModelForCausalLM, name, options)


def _source(name: str | Path) -> tuple[str, dict[str, str]]:
    """What from_pretrained takes; ModelFileError for what is none of the three forms."""
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelFileError(f"{name} is not a file; expected a .gguf file")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir() and str(name):
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise ModelFileError(f"{name} holds no config.json, so no model; {_FORMS}")
    elif path.is_file():
        raise ModelFileError(f"{name} is a file, and no .gguf file; {_FORMS}")
    elif not _HUB_ID.fullmatch(str(name)):
        raise ModelFileError(f"no model at '{name}'; {_FORMS}")
    return str(name), {}


def _load(kind: Any, name: str | Path, options: dict[str, Any]) -> Any:
    # Who names a file or a folder inside knows what is there.
    named = options.keys() & {"gguf_file", "subfolder"}
    source, more = (str(name), {}) if named else _source(name)
    try:
        return kind.from_pretrained(source, **more, **options)
    except Exception as error:
        # The first lines say what is wrong; others show reports and links.
        reason = " ".join(str(error).strip().split("\n\n")[0].split()) or repr(error)
        if re.search("out of memory|can't allocate", reason):
            raise OutOfMemoryError(
                f"{name} does not fit in memory ({reason}); load it in half precision, or "
                "where there is more"
            ) from error
        raise ModelFileError(
            f"{name} cannot be loaded: {reason}; {_cure(name, error)}"
        ) from error


def _cure(name: str | Path, error: Exception) -> str:
    if isinstance(error, ImportError):
        return "pip install 'moa-mlir[hf]', and what else is named here"
    if Path(name).exists():
        return "its files are incomplete, damaged, or do not belong together: fetch them again"
    return f"{_FORMS}; without a network, fetch it elsewhere and name its folder"
