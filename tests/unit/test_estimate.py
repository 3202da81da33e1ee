"""The arithmetic agrees to the byte with what transformers, bitsandbytes and peft really allocate."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.memory.estimate import MemoryEstimate, MemoryPart, Quantization, verdict
from core.memory.estimate import estimate as estimate_of_weights
from core.memory.weights import weights_in_files
from core.models.architecture import detect
from core.models.checkpoint_files import TensorInfo, read_tensors

PARTS = [
    "base_weights",
    "quantization_constants",
    "adapter_weights",
    "gradients",
    "optimizer_state",
    "activations",
    "logits",
    "allocator_and_context",
]
# The sizes leave remainders in the blocks of 64 weights and of 256 scales.
TINY = {"hidden_size": 72, "intermediate_size": 203, "num_attention_heads": 4, "num_key_value_heads": 2}
OTHERS = {"vocab_size": 331, "num_hidden_layers": 3}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(**TINY, **OTHERS, head_dim=18, tie_word_embeddings=request.param, attention_bias=True)
        folder = tmp_path_factory.mktemp("llama")
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        yield folder


def figures(result: MemoryEstimate) -> dict[str, int | None]:
    return {part.name: part.bytes for part in result.parts}


def settings(**changes: Any) -> dict[str, Any]:
    plain = {
        "quantization": "none",
        "double_quant": False,
        "dtype": "bfloat16",
        "method": "lora",
        "lora_r": 5,
        "lora_targets": "all-linear",
        "optimizer": "adamw_torch",
    }
    return plain | changes


def estimate(tensors: tuple[TensorInfo, ...], tied_embeddings: bool = False, **changes: Any) -> MemoryEstimate:
    return estimate_of_weights(weights_in_files(tensors, tied_embeddings=tied_embeddings), **changes)


def predict(checkpoint: Path, **changes: Any) -> MemoryEstimate:
    tied = detect(checkpoint).tied_embeddings
    return estimate(read_tensors(checkpoint), tied_embeddings=tied, **settings(**changes))


def load(checkpoint: Path, quantization: Quantization, double_quant: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = None
    if quantization == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    elif quantization != "none":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization,
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16, quantization_config=config)


def real_bytes(model: Any) -> tuple[int, int]:
    """Return the bytes of all parameters, each once, and of what bitsandbytes keeps beside them."""
    from bitsandbytes.nn import Int8Params, Params4bit

    weights = constants = 0
    for parameter in model.parameters():
        weights += parameter.nbytes
        if isinstance(parameter, Params4bit):
            state = parameter.quant_state
            kept = [state.absmax, state.code]
            if state.nested:
                kept += [state.offset, state.state2.absmax, state.state2.code]
            constants += sum(tensor.nbytes for tensor in kept)
        elif isinstance(parameter, Int8Params):
            constants += parameter.SCB.nbytes
    return weights, constants


@pytest.mark.parametrize(
    ("quantization", "double_quant"),
    [("none", False), ("nf4", True), ("nf4", False), ("fp4", True), ("int8", False)],
)
def test_base_weights_and_constants_are_exact_to_the_byte(
    checkpoint: Path, quantization: Quantization, double_quant: bool
) -> None:
    predicted = figures(predict(checkpoint, quantization=quantization, double_quant=double_quant))
    weights, constants = real_bytes(load(checkpoint, quantization, double_quant))
    assert (predicted["base_weights"], predicted["quantization_constants"]) == (weights, constants)
    assert (constants > 0) == (quantization != "none")


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("mlp.down_proj",), ("embed_tokens",)])
def test_adapters_are_exact_to_the_byte(checkpoint: Path, targets: str | tuple[str, ...]) -> None:
    from peft import LoraConfig, get_peft_model

    wanted = targets if isinstance(targets, str) else list(targets)
    adapted = get_peft_model(load(checkpoint, "none", False), LoraConfig(r=5, target_modules=wanted))
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    result = predict(checkpoint, lora_targets=targets)
    assert result.trainable_parameters == sum(parameter.numel() for parameter in trained) > 0
    assert figures(result)["adapter_weights"] == sum(parameter.nbytes for parameter in trained)


def test_dora_adds_a_magnitude_for_each_output(checkpoint: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=5, target_modules="all-linear", use_dora=True)
    trained = [p for p in get_peft_model(load(checkpoint, "none", False), config).parameters() if p.requires_grad]
    result = predict(checkpoint, dora=True)
    assert result.trainable_parameters == sum(parameter.numel() for parameter in trained)
    assert figures(result)["adapter_weights"] == sum(parameter.nbytes for parameter in trained)


def test_an_adapter_on_a_quantized_base_adapts_the_same_layers_at_half_the_size(checkpoint: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load(checkpoint, "nf4", True), LoraConfig(r=5, target_modules="all-linear"))
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    result = predict(checkpoint, quantization="nf4", double_quant=True)
    assert result.trainable_parameters == sum(parameter.numel() for parameter in trained)
    elements = sum(parameter.numel() for parameter in trained)
    assert (figures(result)["adapter_weights"], figures(result)["gradients"]) == (2 * elements, 2 * elements)


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_torch_optimizers_hold_what_is_predicted(checkpoint: Path, optimizer: str) -> None:
    import torch

    model = load(checkpoint, "none", False)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    if optimizer == "sgd":
        stepper: Any = torch.optim.SGD(parameters)
    else:
        stepper = torch.optim.AdamW(parameters, fused=optimizer.endswith("fused"))
    stepper.step()
    # Unless fused, the step counts stay on the CPU when the weights are on a GPU.
    held = sum(
        value.nbytes
        for state in stepper.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and (name != "step" or optimizer.endswith("fused"))
    )
    predicted = predict(checkpoint, method="full", optimizer=optimizer)
    assert figures(predicted)["optimizer_state"] == held
    assert figures(predicted)["gradients"] == sum(parameter.nbytes for parameter in parameters)
    assert predicted.trainable_parameters == predicted.total_parameters == detect(checkpoint).parameters


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [("adamw_8bit", "AdamW8bit"), ("paged_adamw_32bit", "AdamW32bit"), ("lion_8bit", "Lion8bit"),
     ("lion_32bit", "Lion32bit")],
)  # fmt: skip
def test_bitsandbytes_optimizers_hold_what_is_predicted(optimizer: str, name: str) -> None:
    import bitsandbytes
    import torch

    shapes = [(72, 203), (5, 72), (64, 64), (4095, 1), (4097, 1)]
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16)) for shape in shapes]
    stepper = getattr(bitsandbytes.optim, name)(parameters)
    for index, parameter in enumerate(parameters):
        stepper.init_state(stepper.param_groups[0], parameter, 0, index)
    held = {
        value.data_ptr(): value.nbytes
        for state in stepper.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    }
    tensors = tuple(TensorInfo(f"l.{i}.proj.weight", shape, "BF16", 0) for i, shape in enumerate(shapes))
    predicted = estimate(tensors, **settings(method="full", optimizer=optimizer))
    assert figures(predicted)["optimizer_state"] == sum(held.values())


EMBEDDING = TensorInfo("model.embed_tokens.weight", (1000, 64), "BF16", 128_000)
LINEAR = TensorInfo("model.layers.0.mlp.up_proj.weight", (256, 64), "BF16", 32_768)
NORM = TensorInfo("model.norm.weight", (64,), "BF16", 128)
HEAD = TensorInfo("lm_head.weight", (1000, 64), "BF16", 128_000)
MODEL = (EMBEDDING, LINEAR, NORM, HEAD)


def test_the_parts_are_named_in_order_and_what_is_missing_is_not_zero() -> None:
    result = estimate(MODEL, **settings())
    assert [part.name for part in result.parts] == PARTS
    assert [part.name for part in result.parts if part.bytes is None] == PARTS[5:]
    assert all(part.basis for part in result.parts)
    assert not result.total_is_complete
    assert result.known_bytes == sum(part.bytes or 0 for part in result.parts)


def test_only_linear_layers_are_quantized() -> None:
    result = estimate(MODEL, **settings(quantization="nf4"))
    assert result.quantized_parameters == 256 * 64
    assert result.embeddings_bytes == 2 * 128_000
    assert figures(result)["base_weights"] == 256 * 64 // 2 + 2 * 128_000 + 128


EXPERTS = tuple(
    TensorInfo(name, (64, 64), "BF16", 8192)
    for name in (
        "model.layers.0.mlp.experts.3.up_proj.weight",
        "model.layers.0.mlp.gate.weight",
        "model.layers.0.self_attn.q_proj.weight",
    )
)


def test_experts_and_routers_are_not_quantized() -> None:
    result = estimate((*MODEL, *EXPERTS), **settings(quantization="nf4"))
    assert result.quantized_parameters == 256 * 64 + 64 * 64


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "up_proj"), ("gate",)])
def test_adapters_of_experts_are_not_guessed(targets: Any) -> None:
    result = estimate((*MODEL, *EXPERTS), **settings(lora_targets=targets))
    assert result.trainable_parameters is None
    assert [part.name for part in result.parts if part.bytes is None] == PARTS[2:]


def test_float16_keeps_trained_weights_in_float32() -> None:
    half, brain = (estimate(MODEL, **settings(quantization="nf4", dtype=dtype)) for dtype in ("float16", "bfloat16"))
    assert half.parts[2].bytes == 2 * (brain.parts[2].bytes or 0) > 0


def test_a_target_may_name_one_layer() -> None:
    tensors = tuple(TensorInfo(f"model.layers.{i}.mlp.up_proj.weight", (8, 4), "BF16", 64) for i in range(12))
    result = estimate(tensors, **settings(lora_targets=("layers.1.mlp.up_proj",)))
    assert result.trainable_parameters == 5 * (8 + 4)


def test_adapters_beside_the_experts_are_counted() -> None:
    result = estimate((*MODEL, *EXPERTS), **settings(lora_targets=("q_proj",)))
    assert result.trainable_parameters == 5 * (64 + 64)


def test_a_layout_of_gpt2_has_its_scales_by_output() -> None:
    shapes = {"c_attn": (64, 192), "c_fc": (64, 256)}
    tensors = [TensorInfo(f"h.0.{name}.weight", shape, "F32", 0) for name, shape in shapes.items()]
    tensors += [
        TensorInfo(f"h.0.{part}.c_proj.weight", (size, 64), "F32", 0) for part, size in (("attn", 64), ("mlp", 256))
    ]
    result = estimate(tuple(tensors), **settings(quantization="int8"))
    assert figures(result)["quantization_constants"] == 4 * (192 + 256 + 64 + 64)


def test_the_attention_of_torch_is_not_quantized() -> None:
    attention = tuple(
        TensorInfo(f"vision.head.attention.{name}", shape, "BF16", 0)
        for name, shape in {"in_proj_weight": (96, 32), "out_proj.weight": (32, 32)}.items()
    )
    assert estimate(attention, **settings(quantization="nf4")).quantized_parameters == 0


def test_embeddings_keep_float32_moments_in_8bit_optimizers() -> None:
    in_8bit = 256 * 64 + 1000 * 64
    expected = 2 * (4 * (1000 * 64 + 64) + in_8bit + 4 * (64 + 250) + 1024)
    result = estimate(MODEL, **settings(method="full", optimizer="adamw_bnb_8bit"))
    assert figures(result)["optimizer_state"] == expected


def test_an_optimizer_that_is_not_known_is_not_guessed() -> None:
    result = estimate(MODEL, **settings(optimizer="adafactor"))
    assert figures(result)["optimizer_state"] is None
    assert "adafactor" in result.parts[4].basis


def test_quantized_weights_cannot_be_trained() -> None:
    with pytest.raises(SftuiError, match="Quantized weights cannot be trained"):
        estimate(MODEL, **settings(method="full", quantization="int8"))


def test_the_verdict_is_sure_only_when_it_can_be() -> None:
    result = estimate(MODEL, **settings())
    assert verdict(result, result.known_bytes - 1)[0] == "does_not_fit"
    answer, reason = verdict(result, 10**12)
    assert answer == "unknown"
    assert "activations" in reason
    assert verdict(result, None)[0] == "unknown"


@pytest.mark.parametrize(("free", "answer"), [(999, "does_not_fit"), (1000, "tight"), (1050, "tight"), (2000, "fits")])
def test_a_complete_estimate_gives_a_verdict(free: int, answer: str) -> None:
    whole = MemoryEstimate((MemoryPart("base_weights", 1000, "exact"),), 0, 500, 0, 0)
    assert whole.total_is_complete
    assert verdict(whole, free)[0] == answer


def test_the_fixture_is_a_checkpoint_that_pads_its_blocks(checkpoint: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert json.loads((checkpoint / "config.json").read_text())["model_type"] == "llama"
    sizes = [tensor.elements for tensor in read_tensors(checkpoint) if tensor.name.endswith("proj.weight")]
    assert any(size % 64 for size in sizes)
    assert any(-(-size // 64) % 256 for size in sizes)
