"""Which attention kernels a run can use on this machine, why not the others, and how to get those. Light."""

import functools
import importlib.util
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from core.choice import Choice
from core.devices.gpu import GpuSnapshot
from core.models.architecture import Architecture
from core.models.auto_tables import auto_tables, module_file
from core.models.refusals import CAUSAL_TABLE, IMAGE_TEXT_TABLE
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from core.text import safe

_FIELD = "attn_implementation"
_FLAGS = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
# What transformers itself takes from the hub in place of a missing package.
_KNOWN_KERNELS = ("kernels-community/flash-attn2", "kernels-community/vllm-flash-attn3")
_AMPERE, _HOPPER = 8, 9
_CLASS = re.compile(r"^class (?P<name>\w+)(?:\((?P<bases>[^)]*)\))?:", re.MULTILINE)
_FLAG = re.compile(r"^    (?P<name>_supports_\w+)\s*(?::\s*bool\s*)?=\s*(?P<value>True|False)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AttentionOption:
    """One kernel, and whether it works here."""

    name: str
    """As `attn_implementation` takes it."""
    available: bool
    reason: str
    """What it is good for, or why it cannot be used."""
    how_to_get: str
    """Empty where it is available, or cannot be had on this machine."""


def attention_choices(
    gpu: GpuSnapshot | None, architecture: Architecture | None, allow_hub_kernels: Collection[str] = ()
) -> tuple[AttentionOption, ...]:
    """Return every kernel, those that work first to last as transformers names them, then kernels of the hub.

    `allow_hub_kernels` are the names that the user lets run. Without an architecture, what it supports is not asked.
    """
    kernels = dict.fromkeys((*allow_hub_kernels, *_KNOWN_KERNELS))
    names = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", *kernels)
    return tuple(_option(name, gpu, architecture, allow_hub_kernels) for name in names)


def choose_attention(
    spec: RunSpec,
    gpu: GpuSnapshot | None = None,
    architecture: Architecture | None = None,
) -> Choice:
    """Return the attention implementation: as asked for, else what transformers takes for this model by itself."""
    if spec.attn_implementation is not None:
        return Choice(_FIELD, spec.attn_implementation, "as asked for")
    sdpa = _option("sdpa", gpu, architecture, ())
    if sdpa.available:
        return Choice(_FIELD, "sdpa", "in PyTorch, on every device")
    return Choice(_FIELD, "eager", sdpa.reason)


def attention_problem(
    spec: RunSpec, gpu: GpuSnapshot | None, architecture: Architecture | None, dtype: str
) -> Problem | None:
    """Return why the attention that is asked for cannot work here, and how to get it; None where it works."""
    name = spec.attn_implementation
    if name is None:
        return None
    option = _option(name, gpu, architecture, spec.sftui.allow_hub_kernels)
    otherwise = "Leave attn_implementation empty to take what works here."
    if not option.available:
        fix = f"{option.how_to_get} {otherwise}" if option.how_to_get else otherwise
        return Problem(_FIELD, "error", f"{safe(name)} cannot be used: {option.reason}.", fix)
    if dtype == "float32" and (name.startswith("flash_attention") or "/" in name):
        message = f"{safe(name)} computes in 16 bits only, and dtype is float32."
        return Problem(_FIELD, "error", message, f"Set dtype to bfloat16. {otherwise}")
    return None


def _option(
    name: str, gpu: GpuSnapshot | None, architecture: Architecture | None, allowed: Collection[str]
) -> AttentionOption:
    reason, how = _obstacle(name, gpu, architecture, allowed)
    if reason:
        return AttentionOption(name, False, reason, how)
    goods = {
        "eager": "plain PyTorch, on every device; holds the whole attention matrix",
        "sdpa": "in PyTorch, on every device; chooses the fastest kernel that fits",
        "flash_attention_2": "installed, and this GPU can run it",
        "flash_attention_3": "installed, and made for this GPU",
        "flex_attention": "in PyTorch; compiles at the first step",
    }
    return AttentionOption(name, True, goods.get(name, "allowed by you; its compiled code comes from the hub"), "")


def _obstacle(
    name: str, gpu: GpuSnapshot | None, architecture: Architecture | None, allowed: Collection[str]
) -> tuple[str, str]:
    """Return why a kernel cannot be used ("" if it can) and how to get it ("" if it cannot be had)."""
    if name == "eager":
        return "", ""
    if architecture is not None and _supports(architecture, name) is False:
        return f"transformers has no {name} for {safe(architecture.model_type)}", ""
    if name == "sdpa":
        return "", ""
    if gpu is None:
        return "it needs an NVIDIA GPU", ""
    capability = gpu.compute_capability
    if name == "flex_attention":
        return "", ""
    hopper_only = name == "flash_attention_3" or name.endswith("flash-attn3")
    if capability is not None and hopper_only and capability[0] != _HOPPER:
        return f"it needs compute capability 9.x (Hopper), and {safe(gpu.name)} has {_dotted(capability)}", ""
    if capability is not None and capability[0] < _AMPERE:
        return f"it needs compute capability 8.0 or more, and {safe(gpu.name)} has {_dotted(capability)}", ""
    if "/" in name:
        return _kernel_obstacle(name, allowed)
    if name == "flash_attention_2" and not _installed("flash_attn"):
        return "the package flash-attn is not installed", "Install it: pip install flash-attn --no-build-isolation."
    if name == "flash_attention_3" and not _installed("flash_attn_interface"):
        how = "Build it from github.com/Dao-AILab/flash-attention: python setup.py install in the folder hopper."
        return "the package flash_attn_interface is not installed", how
    return "", ""


def _kernel_obstacle(name: str, allowed: Collection[str]) -> tuple[str, str]:
    missing = "" if _installed("kernels") else " Install what loads it: pip install kernels."
    if name not in allowed:
        how = f"If you trust it, put {safe(name)} into sftui.allow_hub_kernels.{missing}"
        return "it is compiled code from the hub, which nobody has allowed", how
    return ("the package kernels is not installed", missing.strip()) if missing else ("", "")


def _supports(architecture: Architecture, name: str) -> bool | None:
    """Return whether transformers' class for the model says that it can; None where that is not known."""
    flag = _FLAGS.get(name, "_supports_flash_attn")
    if architecture.remote_code is not None:
        return None
    table = CAUSAL_TABLE if architecture.auto_class == "AutoModelForCausalLM" else IMAGE_TEXT_TABLE
    class_name = auto_tables().get(table, {}).get(architecture.model_type)
    path = module_file(architecture.model_type, "modeling")
    if class_name is None or not path.is_file():
        return None
    classes = _flags(path)
    return _inherited(class_name, flag, classes) if class_name in classes else None


def _inherited(class_name: str, flag: str, classes: dict[str, tuple[tuple[str, ...], dict[str, bool]]]) -> bool:
    bases, own = classes.get(class_name, ((), {}))
    # PreTrainedModel, where every chain ends, supports nothing.
    return own[flag] if flag in own else any(_inherited(base, flag, classes) for base in bases if base in classes)


@functools.cache
def _flags(path: Path) -> dict[str, tuple[tuple[str, ...], dict[str, bool]]]:
    """Return the bases and the flags of each class in a modeling file. Parsing it would take ten times as long."""
    source = path.read_text(encoding="utf-8")
    starts = list(_CLASS.finditer(source))
    ends = [match.start() for match in starts[1:]] + [len(source)]
    return {
        match["name"]: (
            tuple(re.findall(r"\w+", match["bases"] or "")),
            {flag["name"]: flag["value"] == "True" for flag in _FLAG.finditer(source, match.end(), end)},
        )
        for match, end in zip(starts, ends, strict=True)
    }


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
