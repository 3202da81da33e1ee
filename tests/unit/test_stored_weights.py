"""Checkpoints that are stored quantized, planned from their headers alone, by the layout of each method."""

from typing import Any

import pytest

from core.memory.estimate import estimate
from core.memory.stored_weights import stored_weights
from core.memory.weights import ModelWeights
from core.models.checkpoint_files import TensorInfo

HIDDEN, INNER, WORDS = 64, 128, 100
BYTES = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "I8": 1, "F8_E4M3": 1}
UP, DOWN, Q = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"
SIZES = {UP: (INNER, HIDDEN), DOWN: (HIDDEN, INNER), Q: (HIDDEN, HIDDEN)}
PLAIN = {"model.embed_tokens.weight": ("BF16", (WORDS, HIDDEN)), "model.norm.weight": ("BF16", (HIDDEN,))}


def layer(method: str, rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors that a method keeps of a layer of `rows` outputs and `columns` inputs."""
    match method:
        case "gptq 4-bit":
            return {
                "qweight": ("I32", (columns // 8, rows)), "qzeros": ("I32", (columns // 32, rows // 8)),
                "scales": ("F16", (columns // 32, rows)), "g_idx": ("I32", (columns,)), "bias": ("F16", (rows,)),
            }  # fmt: skip
        case "awq 4-bit":
            return {
                "qweight": ("I32", (columns, rows // 8)), "qzeros": ("I32", (columns // 32, rows // 8)),
                "scales": ("F16", (columns // 32, rows)),
            }  # fmt: skip
        case "fp8":
            return {"weight": ("F8_E4M3", (rows, columns)), "weight_scale_inv": ("F32", (1, 1))}
        case "compressed-tensors 4-bit int":
            return {
                "weight_packed": ("I32", (rows, columns // 8)), "weight_scale": ("BF16", (rows, columns // 32)),
                "weight_shape": ("I64", (2,)),
            }  # fmt: skip
        case "bitsandbytes 8-bit":
            return {"weight": ("I8", (rows, columns)), "SCB": ("F32", (rows,)), "weight_format": ("U8", ())}
        case _:
            return {
                "weight": ("U8", (rows * columns // 2, 1)), "weight.absmax": ("U8", (rows * columns // 64,)),
                "weight.quant_map": ("F32", (16,)), "weight.nested_absmax": ("F32", (1,)),
                "weight.nested_quant_map": ("F32", (256,)), "weight.quant_state.bitsandbytes__nf4": ("U8", (90,)),
            }  # fmt: skip


def checkpoint(method: str) -> tuple[TensorInfo, ...]:
    named = dict(PLAIN)
    for module, (rows, columns) in SIZES.items():
        named |= {f"{module}.{leaf}": what for leaf, what in layer(method, rows, columns).items()}
    return tuple(_tensor(name, *what) for name, what in sorted(named.items()))


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    one = TensorInfo(name, shape, dtype, 0)
    return TensorInfo(name, shape, dtype, one.elements * BYTES[dtype])


def weights(method: str, tensors: tuple[TensorInfo, ...], hidden_size: int | None = HIDDEN) -> ModelWeights:
    return stored_weights(tensors, method, tied_embeddings=False, vision=False, hidden_size=hidden_size, inventory=None)


def planned(found: ModelWeights, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "quantization": "none", "double_quant": False, "dtype": "bfloat16", "method": "lora", "lora_r": 4,
        "lora_targets": "all-linear", "optimizer": "adamw_torch",
    }  # fmt: skip
    return estimate(found, **settings | changes)


METHODS = ["gptq 4-bit", "awq 4-bit", "fp8", "compressed-tensors 4-bit int", "bitsandbytes 8-bit",
           "bitsandbytes 4-bit nf4, double"]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_layout_is_planned_as_it_is_stored(method: str) -> None:
    tensors = checkpoint(method)
    result = planned(weights(method, tensors), dora=True)
    base, constants = (part.bytes or 0 for part in result.parts[:2])
    kept_nowhere = ("quant_state.bitsandbytes__nf4", "weight_format")
    in_files = sum(tensor.byte_count for tensor in tensors if not tensor.name.endswith(kept_nowhere))
    # The offset of nested constants lies in what is read and thrown away.
    offsets = 4 * len(SIZES) if "double" in method else 0
    assert base + constants == in_files + offsets
    assert constants > 0
    assert f"as stored in {method}" in result.parts[0].basis
    assert result.parts[1].basis == "as stored"
    # A and B of rank 4, and a magnitude for each output.
    assert result.trainable_parameters == sum(4 * (rows + columns) + rows for rows, columns in SIZES.values())
    assert result.quantized_parameters == sum(rows * columns for rows, columns in SIZES.values())
    # Only bitsandbytes' bases have their adapters cast by the trainer.
    wide = 2 if method.startswith("bitsandbytes") else 4
    assert (planned(weights(method, tensors)).parts[2].bytes or 0) == wide * 4 * sum(map(sum, SIZES.values()))


def test_layers_whose_shape_no_file_tells_leave_their_adapters_open() -> None:
    method = "bitsandbytes 4-bit nf4, double"
    result = planned(weights(method, checkpoint(method), hidden_size=None))
    assert result.trainable_parameters is None
    assert result.parts[0].bytes is not None
    assert not result.total_is_complete


def test_what_is_unpacked_later_is_told() -> None:
    method = "compressed-tensors 4-bit int"
    assert "unpacks them at the first step" in planned(weights(method, checkpoint(method))).parts[0].basis
