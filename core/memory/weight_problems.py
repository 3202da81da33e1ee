"""Options that name modules of the model, or an adapter for it, and do not fit what it has."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from core.memory.estimate import is_skipped
from core.memory.weights import ModelWeights
from core.models.adapter_files import StartAdapter, layer_of, other_base
from core.models.target_names import is_called, modules_above
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from core.text import safe

_SKIP, _WHOLE, _START = "sftui.skip_modules", "lora_modules_to_save", "sftui.start_from_adapter"


def skip_patterns(spec: RunSpec) -> tuple[str, ...]:
    """Those of the names in `sftui.skip_modules` that can be matched."""
    return tuple(name for name in spec.sftui.skip_modules if name and _is_pattern(name))


def weight_problems(spec: RunSpec, weights: ModelWeights, start: StartAdapter | None) -> list[Problem]:
    """Return what the run would refuse, or quietly leave out, of the modules and of the adapter that a spec names."""
    found: list[Problem] = []
    if spec.quantization != "none" and weights.stored is None:
        found += _skip_problems(spec, weights)
    if not spec.use_peft:
        return found
    if start is not None:
        return [*found, *_start_problems(start, weights)]
    return [*found, *_whole_problems(spec, weights)]


def _skip_problems(spec: RunSpec, weights: ModelWeights) -> Iterator[Problem]:
    for name in spec.sftui.skip_modules:
        if not _is_pattern(name):
            message = f"names {safe(name)}, which is no regular expression."
            yield Problem(_SKIP, "error", message, "Name a module: down_proj.")
        elif not name or not any(is_skipped(module, (name,)) for module in weights.modules):
            yield Problem(_SKIP, "warning", f"names “{safe(name)}”, and no module fits it.", _there(name, weights))


def _whole_problems(spec: RunSpec, weights: ModelWeights) -> Iterator[Problem]:
    skipped = skip_patterns(spec)
    for name in spec.lora_modules_to_save or ():
        if not any(is_called(module, name) for module in weights.modules):
            message = f"names “{safe(name)}”, and the model has no such module."
            # The files of some models have other names than the model itself.
            yield Problem(_WHOLE, "error" if weights.exact else "warning", message, _there(name, weights))
            continue
        for group in weights.groups:
            quantized = group.weight.stored is not None or (group.weight.quantizable and spec.quantization != "none")
            if quantized and any(
                any(is_called(module, name) for module in modules_above(one)) and not is_skipped(one, skipped)
                for one in group.names
            ):
                fix = f"Name it in {_SKIP} too." if weights.stored is None else "Take the unquantized checkpoint."
                message = f"names {safe(name)}, whose weights are quantized and cannot be trained."
                yield Problem(_WHOLE, "error", message, fix)
                break


def _start_problems(start: StartAdapter, weights: ModelWeights) -> Iterator[Problem]:
    # PEFT renames the weights of adapters for mixtures while it reads them.
    if not weights.exact or any(group.weight.is_fused_experts for group in weights.groups):
        return
    sides = {name.removesuffix(".weight"): group.weight.named for group in weights.groups for name in group.names}
    for key, shape in start.shapes.items():
        if not key.endswith((".lora_A.weight", ".lora_B.weight")) or len(shape) != 2:
            continue
        layer = layer_of(key)
        if layer not in sides:
            words = f"there is no {safe(layer)} in this one"
        elif (side := sides[layer]) is not None:
            wanted, there = (side[0], shape[1]) if ".lora_A." in key else (side[1], shape[0])
            if wanted == there:
                continue
            words = f"{safe(layer)} has {wanted:,} features here, and {there:,} there"
        else:
            continue
        refusal = other_base(start, words)
        yield Problem(_START, "error", f"{refusal.title}: {refusal.message}", refusal.hint)
        return


def _is_pattern(name: str) -> bool:
    try:
        re.compile(f"(?:{name})")
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _there(name: str, weights: ModelWeights) -> str:
    ends = sorted({end for module in weights.modules if not (end := module.rpartition(".")[2]).isdigit()})
    near = get_close_matches(name.rpartition(".")[2], ends, n=3)
    hint = f"Did you mean {' or '.join(map(safe, near))}? " if near else ""
    return f"{hint}The model has: {safe(', '.join(ends[:20]))}."
