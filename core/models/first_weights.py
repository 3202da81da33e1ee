"""What adapters start from, where it takes more than a random matrix: EVA, LoftQ, and PiSSA and OLoRA written plain.

EVA: the directions in which the layers' inputs vary over the training rows (arXiv 2410.07170), of one rank for all.

LoftQ: the product of the adapter's matrices makes up for what quantization lost (arXiv 2310.08659, one iteration).
PiSSA (arXiv 2404.02948) and OLoRA (arXiv 2406.01775) move a part of the base's weights into the adapters. What they
leave would fit the changed base alone, so the result is written as the difference to what was moved: a plain LoRA of
twice the rank that fits the base as its files have it.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft import initialize_lora_eva_weights
from peft.tuners.lora import Linear4bit
from peft.tuners.lora.layer import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.errors import SftuiError
from core.spec.run_spec import RunSpec

# PEFT asks for batches until the directions stand still, however long that takes.
_MOST_BATCHES = 500

FirstWeights = Mapping[str, torch.Tensor]
"""By the names that the adapter's file has; empty where the base is as its files have it."""


def changes_base(spec: RunSpec) -> bool:
    """Whether the adapters start with a part of the base's weights, which are no longer in the base then."""
    new = spec.sftui.start_from_adapter is None
    return spec.use_peft and new and spec.sftui.init_lora_weights in ("pissa", "olora")


def first_weights(model: Any, spec: RunSpec) -> FirstWeights:
    """Copies of what the adapters start from, to be called before the first step; empty if the base is unchanged."""
    if not changes_base(spec):
        return {}
    return {
        f"{name}.{part}.weight": getattr(module, part)["default"].weight.detach().float().cpu().clone()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
        for part in ("lora_A", "lora_B")
    }


def write_plain(folder: Path, first: FirstWeights) -> None:
    """Turn the adapter in a folder into a plain LoRA for the unchanged base: B·A minus what they started from."""
    if not first:
        return
    file, config_file = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(file)
    for name, start in first.items():
        trained, inner = tensors[name], ".lora_A." in name
        moved = (start if inner else -start).to(trained.dtype)
        tensors[name] = torch.cat((trained, moved), dim=0 if inner else 1)
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads(config_file.read_text(encoding="utf-8"))
    # The scale stays alpha over rank, or over its square root.
    config["lora_alpha"] *= 2**0.5 if config["use_rslora"] else 2
    config["r"] *= 2
    config["init_lora_weights"] = True
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def start_with_loftq(adapted: Any) -> float:
    """Set the adapters to the best approximation of what 4 bits lost; returns the share of the loss made up for.

    Raises SftuiError if the checkpoint does not hold the weights in full under the model's names.
    """
    files = _files_of_tensors(Path(adapted.get_base_model().name_or_path))
    before = after = 0.0
    with torch.no_grad():
        for name, module in adapted.named_modules():
            if not isinstance(module, Linear4bit):
                continue
            key = name.removeprefix("base_model.model.") + ".weight"
            if key not in files:
                raise SftuiError(
                    "LoftQ needs the original weights",
                    f"The checkpoint has no {key}, though the model does: its weights are stored in another form.",
                    "Leave sftui.init_lora_weights at default.",
                )
            with safe_open(files[key], framework="pt") as file:
                original = file.get_tensor(key).to(module.weight.device, torch.float32)
            lost = original - dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            u, s, vh = torch.linalg.svd(lost, full_matrices=False)
            rank, scale = module.r["default"], module.scaling["default"]
            root = (s[:rank] / scale).sqrt()
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            # A rank above the matrix's own leaves the rest as a plain start has it.
            b.zero_()
            a[: root.numel()] = root[:, None] * vh[:rank]
            b[:, : root.numel()] = u[:, :rank] * root
            before += float(s.square().sum())
            after += float(s[rank:].square().sum())
    return 1 - (after / before) ** 0.5 if before else 0.0


def start_with_eva(adapted: Any, batches: Any, check: Callable[[], None]) -> None:
    """Set the adapters to what the inputs of their layers have most of; `check` is called for each batch.

    Raises SftuiError if the batches do not tell.
    """
    takes = inspect.signature(adapted.get_base_model().forward).parameters
    # Neither the loss nor the logits are needed, and they are the largest tensors there are.
    fewer = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    seen = 0

    def run(model: Any, batch: Mapping[str, Any]) -> None:
        nonlocal seen
        check()
        seen += 1
        if seen > _MOST_BATCHES:
            raise SftuiError(
                "EVA finds no start for the adapters",
                f"After {_MOST_BATCHES} batches the directions of the layers' inputs still change.",
                "Use larger batches, a lower rank, or leave sftui.init_lora_weights at default.",
            )
        model(**{name: value for name, value in batch.items() if name in takes and name != "labels"}, **fewer)

    initialize_lora_eva_weights(adapted, batches, forward_fn=run, show_progress_bar=False)


def _files_of_tensors(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found
