"""The weights of a checkpoint that is stored quantized: each layer takes what its tensors take in the files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from core.memory.weights import ModelWeights, Weight, grouped, tied_in_files, weight_in_file, weight_of
from core.models.checkpoint_files import TensorInfo
from core.models.inventory_file import Inventory
from core.models.layers import attention_outputs, is_expert, is_output_head
from core.models.tower_names import parts_by_name

# What the methods of transformers call the constants beside a layer's packed weights.
_CONSTANTS = frozenset(
    {
        "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map", "SCB",
        "qzeros", "scales", "g_idx",
        "weight_scale", "weight_scale_inv", "weight_zero_point", "weight_g_idx", "weight_shape", "weight_scale_2",
        "weight_global_scale", "input_global_scale", "input_scale", "activation_scale", "k_scale", "v_scale",
        "codebooks", "weight._scale", "weight._shift", "output_scale", "scale", "zero",
    }
)  # fmt: skip
# Read while the file is loaded, and kept nowhere.
_NOT_KEPT = re.compile(r"\.weight\.quant_state\.bitsandbytes__\w+$|\.weight_format$")
_OFFSET_BYTES = 4
# Only their size counts here.
_OF_SIZE = {1: "uint8", 2: "bfloat16", 4: "float32", 8: "float64"}
# Layers that lead back to the hidden size.
_INWARD = frozenset({"o_proj", "down_proj", "out_proj", "dense", "dense_4h_to_h", "c_proj", "fc2", "w2", "wo"})
_BITS = re.compile(r"(\d+)-bit")


@dataclass(slots=True)
class _Layer:
    """The tensors of one quantized layer, by the last part of their names."""

    packed: dict[str, TensorInfo] = field(default_factory=dict)
    constants: dict[str, TensorInfo] = field(default_factory=dict)

    @property
    def stored(self) -> tuple[int, int]:
        nested = _OFFSET_BYTES if "weight.nested_absmax" in self.constants else 0
        weights, constants = (sum(one.byte_count for one in held.values()) for held in (self.packed, self.constants))
        return weights, constants + nested

    def shape(self, layer: str, stored: str, hidden_size: int | None) -> tuple[int, ...] | None:
        """Outputs × inputs; None where the files do not tell."""
        bits = int(found[1]) if (found := _BITS.search(stored)) else 0
        name, tensor = next(iter(self.packed.items()))
        if not tensor.shape:
            return None
        rows, columns = tensor.shape[0], tensor.shape[-1]
        if "weight.quant_map" in self.constants:
            # A flat run of half bytes; in a transformer's layers one side is the hidden size.
            elements = tensor.byte_count * 2
            if not hidden_size or elements % hidden_size:
                return None
            sides = elements // hidden_size, hidden_size
            return sides[::-1] if layer.rpartition(".")[2] in _INWARD else sides
        if name == "weight" and len(tensor.shape) == 2:
            return tensor.shape
        if name == "weight_packed" and bits:
            return rows, columns * 32 // bits
        if name == "qweight" and bits:
            # AWQ packs the outputs and GPTQ the inputs into words of 32 bits.
            return (columns * 32 // bits, rows) if stored.startswith("awq") else (columns, rows * 32 // bits)
        return None


def stored_weights(
    tensors: tuple[TensorInfo, ...],
    stored: str,
    *,
    tied_embeddings: bool,
    vision: bool,
    hidden_size: int | None,
    inventory: Inventory | None,
) -> ModelWeights:
    """The weights of a checkpoint whose quantization is `stored` ("gptq 4-bit"), exact where an inventory fits it."""
    layers, plain = _split(tensors)
    if inventory is not None and (found := _by_modules(layers, plain, stored, inventory)):
        return found
    plain = tuple(one for one in plain if not (tied_embeddings and is_output_head(one)))
    part_of = parts_by_name([*layers, *(one.name for one in plain)])
    untouched = attention_outputs(plain)

    def weights() -> Iterator[tuple[str, Weight]]:
        for one in plain:
            weight = weight_in_file(one, part_of(one.name) if vision else "text", quantizable=False)
            adapts = one.name not in untouched
            # Experts are fused while they load.
            kept = not one.is_parameter or (comes_as_stored(one.name, stored) and not is_expert(one))
            yield (
                one.name,
                replace(
                    weight,
                    fixed_dtype=_dtype(one) if kept else None,
                    is_parameter=one.is_parameter,
                    all_linear=weight.all_linear if adapts else None,
                ),
            )
        for name, layer in layers.items():
            full = f"{name}.weight"
            shape = layer.shape(name, stored, hidden_size)
            tensor = TensorInfo(full, shape or next(iter(layer.packed.values())).shape, "U8", 0)
            weight = weight_in_file(tensor, part_of(full) if vision else "text", quantizable=False)
            yield full, replace(weight, stored=layer.stored, adapters_unknown=shape is None or weight.adapters_unknown)

    tied = tied_in_files(plain, tied_embeddings)
    return ModelWeights(grouped(weights()), exact=False, tied=tied, stored=stored)


def _by_modules(
    layers: dict[str, _Layer], plain: tuple[TensorInfo, ...], stored: str, inventory: Inventory
) -> ModelWeights | None:
    """The weights of an inventory with what the files say of them; None where their layers are not the same."""
    packed = {_common_name(f"{name}.weight"): layer for name, layer in layers.items()}
    kept = {_common_name(one.name): _dtype(one) for one in plain}
    own = [one for one in inventory.parameters if one.tied_to is None]
    if len(packed) < len(layers) or not packed.keys() <= {_common_name(one.name) for one in own}:
        return None
    # What is renamed while it loads is as all the others are.
    types = {_dtype(one) for one in plain if one.is_parameter}
    usual = next(iter(types)) if len(types) == 1 else None
    pairs, exact = [], True
    for parameter in own:
        weight, name = replace(weight_of(parameter), quantizable=False), _common_name(parameter.name)
        if name in packed:
            weight = replace(weight, stored=packed[name].stored)
            if weight.by_weight and not stored.startswith("bitsandbytes"):
                # Nobody but bitsandbytes keeps it as one weight that an adapter can be put on.
                weight = replace(weight, all_linear=None, named=None)
        elif parameter.kind != "buffer" and comes_as_stored(parameter.name, stored):
            fixed = kept.get(name) or usual
            exact = exact and fixed is not None
            weight = replace(weight, fixed_dtype=fixed)
        pairs.append((parameter.name, weight))
    tied = tuple((one.name, one.tied_to) for one in inventory.parameters if one.tied_to is not None)
    return ModelWeights(grouped(pairs), exact=exact, tied=tied, stored=stored)


def comes_as_stored(name: str, stored: str) -> bool:
    """Whether transformers leaves the type of a weight that is not quantized as it is in the files.

    All of that name pass through what takes bitsandbytes' layers apart; everything else is turned into the type that
    the model is loaded in.
    """
    return stored.startswith("bitsandbytes") and name.endswith(".weight")


def _common_name(name: str) -> str:
    """A weight's name without what the files of many models call otherwise than the model itself."""
    return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


def _split(tensors: tuple[TensorInfo, ...]) -> tuple[dict[str, _Layer], tuple[TensorInfo, ...]]:
    """Return the quantized layers by their names, and the tensors that are none of theirs."""
    named = [(*_module_and_leaf(one.name), one) for one in tensors if not _NOT_KEPT.search(one.name)]
    found: dict[str, _Layer] = {}
    for module, leaf, one in named:
        layer = found.setdefault(module, _Layer())
        if leaf != "bias":
            (layer.constants if leaf in _CONSTANTS else layer.packed)[leaf] = one
    layers = {module: layer for module, layer in found.items() if layer.packed and layer.constants}
    return layers, tuple(one for module, leaf, one in named if module not in layers or leaf == "bias")


def _dtype(tensor: TensorInfo) -> str | None:
    return _OF_SIZE.get(tensor.byte_count // tensor.elements) if tensor.elements else None


def _module_and_leaf(name: str) -> tuple[str, str]:
    module, found, rest = name.rpartition(".weight.")
    if found:
        return module, f"weight.{rest}"
    module, _, leaf = name.rpartition(".")
    return module, leaf
