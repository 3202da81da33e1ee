"""What the names of targets mean: modules and parameters by the last parts of their names, and experts by old names."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from core.spec.run_spec import RunSpec
from core.text import safe

# What one expert's matrices are called, and the fused parameters that hold them for all experts.
_FUSED = {
    "gate_proj": ("gate_up_proj",),
    "up_proj": ("gate_up_proj", "up_proj"),
    "w1": ("gate_up_proj",),
    "w3": ("gate_up_proj",),
    "w2": ("down_proj",),
    "gate_up_proj": ("gate_up_proj",),
    "down_proj": ("down_proj",),
    "experts": ("gate_up_proj", "up_proj", "down_proj", "weight"),
}
_ROUTER = re.compile(r"(^|\.)(gate|shared_expert_gate|[a-z_]*router[a-z_]*)(\.|$)")
_ONE_EXPERT = re.compile(r"\.\d+$")


def is_called(full: str, name: str) -> bool:
    """Whether a name, or the last parts of one, means this module or parameter."""
    return full == name or full.endswith(f".{name}")


def is_router(module: str) -> bool:
    """Whether a module chooses the experts of a token, or lies in one that does."""
    return _ROUTER.search(module) is not None


def modules_above(name: str) -> Iterator[str]:
    """The modules that a weight lies in, the innermost first: "a.b.weight" → "a.b", "a"."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def instead_of(name: str, there: Iterable[str], parts: int = 1) -> str:
    """What the model has, by the last parts of its names, for somebody who asked for a name that it has not; safe."""
    ends = sorted({".".join(other.split(".")[-parts:]) for other in there})
    near = get_close_matches(".".join(name.split(".")[-parts:]), ends, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return safe(f"{hint}The model has: {', '.join(ends[:20])}.")


def why_not_by_weight(spec: RunSpec) -> str:
    """Why PEFT cannot adapt a weight that is no layer of its own under this spec; empty where it can."""
    if spec.use_dora:
        return "PEFT has no DoRA for them"
    if spec.sftui.init_lora_weights not in ("default", "gaussian"):
        return f"PEFT has no {spec.sftui.init_lora_weights} start for them"
    return ""


def means_fused(target: str, parameter: str) -> bool:
    """Whether a target means a fused parameter of all experts by another name than its own.

    "up_proj", "experts" and "experts.0.up_proj" do; "mlp.up_proj" and "shared_experts.up_proj" are of other layers.
    """
    owner, _, fused = parameter.rpartition(".")
    before, _, last = target.rpartition(".")
    if fused not in _FUSED.get(last, ()):
        return False
    if last == "experts":
        return not before or any(is_called(module, target) for module in modules_above(parameter))
    return not before or is_called(owner, _ONE_EXPERT.sub("", before))
