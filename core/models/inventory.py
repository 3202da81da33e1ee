"""Builds a model's module tree on the meta device and asks transformers, bitsandbytes and peft what they would do."""

import copy
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedModel
from transformers.core_model_loading import build_glob_alternation
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from core.errors import SftuiError
from core.models.architecture import AutoClass, detect
from core.models.checkpoint_files import read_config
from core.models.inventory_file import Inventory, InventoryParameter, Kind, keep_inventory, library_versions
from core.models.layers import never_quantized
from core.models.remote_code import find_remote_code, is_allowed
from core.models.targets import choose_targets, claimed_by_peft
from core.models.tower_names import Part
from core.models.towers import find_towers
from core.spec.run_spec import RunSpec
from core.text import safe

# A parameter that is not in this dtype afterwards has one of its own: no model asks for float16 itself.
_NEUTRAL = torch.float16
# All that can be adapted: what a spec leaves frozen is told by its part.
_EVERYWHERE = RunSpec.model_validate(
    {"model_name_or_path": "any", "datasets": [{"path": "any"}], "sftui": {"train_vision": True}}
)
_SIXTEEN_BIT = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def build_inventory(folder: Path, auto_class: AutoClass) -> Inventory:
    """The inventory of the model in `folder`, which is kept on disk as well; seconds, and no weight is read.

    Code of the model's own runs only where the user has allowed what is there now. A checkpoint that is stored
    quantized is built as if it were not. Raises SftuiError when transformers cannot build the model.
    """
    trusted = trusts_own_code(folder)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trusted, local_files_only=True)
        take_quantization_out(config)
        inventory = inventory_of(config, auto_class, trusted=trusted)
    except Exception as error:
        # A configuration from anywhere makes a model's class raise anything.
        raise SftuiError(
            "The model cannot be built",
            f"transformers {transformers.__version__} fails on {safe(str(folder))}: {safe(str(error) or repr(error))}",
            "Check config.json against the model's page; a newer transformers may know it.",
        ) from error
    keep_inventory(folder, inventory)
    return inventory


def inventory_of(config: Any, auto_class: AutoClass, *, trusted: bool = False) -> Inventory:
    """The inventory of the model that a configuration describes; a `trusted` one may name code of its own."""
    model = _build(config, auto_class, trusted)
    quantized = _quantized_weights(_build(config, auto_class, trusted))
    adapted = _adapted_weights(_build(config, auto_class, trusted))
    saved = model.state_dict().keys()
    kept = {name: float32_names(model, dtype, saved) for name, dtype in _SIXTEEN_BIT.items()}
    modules = dict(model.named_modules())
    head, claimed = model.get_output_embeddings(), claimed_by_peft(model.config.model_type)
    part_of = _parts(model)
    first_name: dict[int, str] = {}
    found = []
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        module = name.rpartition(".")[0]
        owner = modules[module]
        first = first_name.setdefault(id(tensor), name)
        found.append(
            InventoryParameter(
                name=name,
                shape=tuple(tensor.shape),
                fixed_dtype=None if tensor.dtype == _NEUTRAL else str(tensor.dtype).removeprefix("torch."),
                float32_in=tuple(dtype for dtype, names in kept.items() if name in names),
                module_class=type(owner).__name__,
                tied_to=None if first == name else first,
                quantizable=name in quantized,
                lora_elements=adapted.get(name),
                kind=(kind := _kind(owner, tensor, is_head=owner is head)),
                by_weight=kind == "linear" and module.rpartition(".")[2] in claimed,
                part=part_of(module),
            )
        )
    return Inventory(model.config.model_type, auto_class, library_versions(), tuple(found))


def trusts_own_code(folder: Path) -> bool:
    """Whether code of the model's own runs: where it is needed, and the user has allowed what is there now."""
    remote = find_remote_code(folder, read_config(folder))
    # Most models that bring code are in transformers too, which is used then.
    return remote is not None and detect(folder).remote_code == remote and is_allowed(remote)


def _build(config: Any, auto_class: AutoClass, trusted: bool) -> Any:
    with torch.device("meta"):
        # Building writes into the configuration.
        return getattr(transformers, auto_class).from_config(
            copy.deepcopy(config), dtype=_NEUTRAL, trust_remote_code=trusted
        )


def _quantized_weights(model: Any) -> set[str]:
    quantizer = Bnb4BitHfQuantizer(BitsAndBytesConfig(load_in_4bit=True), pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map={"": "cpu"})
    packed = [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    kept = never_quantized(model.config.model_type)
    return {f"{name}.weight" for name in packed if name.rpartition(".")[2] not in kept}


def _adapted_weights(model: Any) -> dict[str, tuple[int, int]]:
    """The weights of A and B at rank 1, by the name of the weight that they adapt."""
    try:
        targets = choose_targets(model, _EVERYWHERE)
    except SftuiError:
        return {}
    match = targets.match if isinstance(targets.match, str) else list(targets.match)
    config = LoraConfig(r=1, target_modules=match, target_parameters=list(targets.match_parameters) or None)
    get_peft_model(model, config, low_cpu_mem_usage=True)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            # Wrapped parameters of one module lie inside one another.
            owner = name.replace(".base_layer", "")
            weight = module.parameter_name if isinstance(module, ParamWrapper) else "weight"
            sizes = (module.lora_A["default"].weight.numel(), module.lora_B["default"].weight.numel())
            found[f"{owner}.{weight}"] = sizes
    return found


def take_quantization_out(config: Any) -> dict[str, Any] | None:
    """How a configuration says that its checkpoint is stored quantized, which it does not say any more then."""
    found = None
    for part in (config, config.get_text_config()):
        found = part.__dict__.pop("quantization_config", None) or found
    return found


def keep_in_float32(model: Any, dtype: torch.dtype) -> None:
    """Make float32 of what from_pretrained keeps so in a model that it loads in `dtype`."""
    kept = float32_names(model, dtype, model.state_dict().keys())
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = parameter.data.float()


def float32_names(model: Any, dtype: torch.dtype, saved: Collection[str]) -> set[str]:
    """What from_pretrained keeps in float32 when it loads in `dtype`: only what is in a checkpoint."""
    plan = model._get_dtype_plan(dtype)
    if not plan:
        return set()
    pattern = build_glob_alternation(list(plan))[0]
    return {name for name in saved if pattern.search(name)}


def _kind(owner: torch.nn.Module, tensor: torch.Tensor, *, is_head: bool) -> Kind:
    if not isinstance(tensor, torch.nn.Parameter):
        return "buffer"
    if is_head:
        return "head"
    if isinstance(owner, torch.nn.Embedding):
        return "embedding"
    if isinstance(owner, torch.nn.Linear | Conv1D):
        return "linear" if tensor.ndim == 2 else "other"
    if "Norm" in type(owner).__name__:
        return "norm"
    return "experts" if "Expert" in type(owner).__name__ and tensor.ndim > 1 else "other"


def _parts(model: Any) -> Callable[[str], Part]:
    """Tells which part of the model a module belongs to, by its name."""
    towers = find_towers(model)
    encoders = [
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel) and name in towers.vision
    ]

    def part_of(name: str) -> Part:
        if name in towers.audio:
            return "audio"
        if name not in towers.vision:
            return "text"
        return "vision" if f"{name}.".startswith(tuple(encoders)) else "projector"

    return part_of
