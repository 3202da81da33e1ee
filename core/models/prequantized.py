"""Checkpoints that are stored quantized: which can be trained here, and what is missing for the others. Light."""

import importlib.util

from core.models.architecture import Architecture
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from core.text import safe

_MODEL = "model_name_or_path"
_TAKE_ORIGINAL = "Take the original checkpoint and let sftui quantize it (load_in_4bit)."
# transformers' name of a method → the packages that it imports, and how pip calls them.
_PACKAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "bitsandbytes": (),
    "gptq": (("optimum", "optimum"), ("gptqmodel", "gptqmodel")),
    "awq": (("gptqmodel", "gptqmodel"),),
    "compressed-tensors": (("compressed_tensors", "compressed-tensors"),),
    "hqq": (("hqq", "hqq"),),
    "aqlm": (("aqlm", "aqlm[gpu]"),),
    "quanto": (("optimum", "optimum-quanto"),),
    "torchao": (("torchao", "torchao"),),
}


def method_of(stored: str) -> str:
    """Return the method's name in Architecture.stored_quantization: "gptq 4-bit" → "gptq"."""
    return stored.partition(" ")[0].removesuffix("_4bit").removesuffix("_8bit")


def only_bitsandbytes(stored: str | None) -> bool:
    """Return whether nothing but bitsandbytes quantizes, or has quantized, the layers of a checkpoint so stored."""
    return stored is None or method_of(stored) == "bitsandbytes"


def stored_problems(spec: RunSpec, architecture: Architecture) -> tuple[Problem, ...]:
    """Return why a checkpoint that is stored quantized cannot be trained as this spec asks; nothing where it can."""
    stored = architecture.stored_quantization
    if stored is None:
        return ()
    found = []
    if spec.quantization != "none":
        field = "load_in_4bit" if spec.load_in_4bit else "load_in_8bit"
        message = f"is on, but the checkpoint is stored in {stored} already."
        found.append(Problem(field, "error", message, "Turn it off, or choose the unquantized checkpoint."))
    if spec.sftui.skip_modules:
        message = f"cannot undo what is stored in {stored}."
        found.append(Problem("sftui.skip_modules", "error", message, "Empty it, or choose the unquantized checkpoint."))
    if not spec.use_peft:
        message = f"is off, and weights stored in {stored} are fixed: only an adapter can be trained on them."
        found.append(Problem("use_peft", "error", message, "Turn it on, or choose the unquantized checkpoint."))
    method = method_of(stored)
    if method not in _PACKAGES:
        message = f"is stored in {safe(stored)}, and transformers cannot train such weights without kernels of the hub."
        found.append(Problem(_MODEL, "error", message, _TAKE_ORIGINAL))
        return tuple(found)
    missing = [pip for package, pip in _PACKAGES[method] if importlib.util.find_spec(package) is None]
    if missing:
        message = f"is stored in {safe(stored)}, which needs {' and '.join(missing)}: not installed here."
        fix = f"Install it: pip install {' '.join(missing)}. {_TAKE_ORIGINAL}"
        found.append(Problem(_MODEL, "error", message, fix))
    return tuple(found)
