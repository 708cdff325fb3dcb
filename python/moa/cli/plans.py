"""Which plan a model runs under: the one that was named, or what `auto` finds.

`auto` takes a plan that lies beside the model, or one that is shipped for a model of
this name and geometry; otherwise the model runs dense. It always says which.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from ..compiler import shape_of
from ..errors import InvalidArgumentError

#: Names of a plan beside a model, beside `NAME.plan.json` for NAME.gguf.
BESIDE = ("plan.json", "moa-plan.json")
SHIPPED = Path(__file__).parents[1] / "plans"
#: What a plan and a model have in common.
_GEOMETRY = ("layers", "q_heads", "kv_heads", "head_dim")
_QUANTISED = re.compile(r"[.-](i?q[0-9]|bf16|f16|f32)[a-z0-9_]*$", re.I)


@dataclasses.dataclass(frozen=True)
class Choice:
    """plan: a file, or a plan's content. line: what is told about it."""

    plan: str | dict[str, Any]
    line: str


def choose(asked: str, model: str, config: Any) -> Choice:
    """asked: a plan file, "auto" or "dense"; model: as the user named it; config: its
    transformers config. InvalidArgumentError with the cure where nothing is certain.
    """
    if asked == "dense":
        return Choice(dense(config), "no plan: every head sees everything")
    if asked != "auto":
        if not Path(asked).is_file():
            raise InvalidArgumentError(
                f"{asked} is not a file; --plan takes a plan file, auto or dense"
            )
        return Choice(asked, f"plan {asked}")
    beside = _beside(Path(model))
    if len(beside) > 1:
        names = ", ".join(str(path) for path in beside)
        raise InvalidArgumentError(
            f"several plans lie beside the model ({names}): name one by --plan"
        )
    if beside:
        return Choice(str(beside[0]), f"plan {beside[0]}, found beside the model")
    sizes, others = _sizes(config), []
    for path in sorted(SHIPPED.glob("*.json")):
        told = json.loads(path.read_text())["model"]
        if any(str(told.get(key)) != sizes[key] for key in _GEOMETRY):
            continue
        if told["name"].split("/")[-1].lower() == model_name(model).lower():
            return Choice(str(path), f"plan {path}, shipped for {told['name']}")
        others.append(f"{path} is for {told['name']}")
    hint = f" (same geometry, another model: {'; '.join(others)})" if others else ""
    return Choice(
        dense(config),
        f"no plan found beside {model} and none is shipped for it{hint}: runs dense; "
        "--plan PLAN names one",
    )


def dense(config: Any) -> dict[str, Any]:
    """The plan under which every head sees everything."""
    sizes = _sizes(config)
    layers, heads = int(sizes["layers"]), int(sizes["q_heads"])
    rules = {"alphas": [[0.0] * heads] * layers, "betas": [[1.0] * heads] * layers}
    return {"format": "moa-plan", "version": 1, **rules}


def model_name(model: str) -> str:
    """Of a hub id, a folder or a .gguf file, without its quantisation."""
    path = Path(model)
    if path.suffix == ".gguf":
        return _QUANTISED.sub("", path.stem)
    return (path.resolve() if path.exists() else path).name


def _beside(model: Path) -> list[Path]:
    if model.suffix == ".gguf":
        own = model.with_suffix(".plan.json")
        if own.is_file():
            return [own]
        model = model.parent
    return [model / name for name in BESIDE if (model / name).is_file()]


def _sizes(config: Any) -> dict[str, str]:
    return dict(part.split("=") for part in shape_of(config).split(","))
