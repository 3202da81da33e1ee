"""The arithmetic of a step against two whole steps of the model's own code with fake tensors, which hold what a real
run holds to the byte (see test_simulation.py)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.memory.activations import StepBytes
from core.memory.batch_shape import BatchShape
from core.memory.estimate import MemoryEstimate
from core.memory.simulated import Simulation
from core.models.architecture import detect
from core.models.loading import LoadRequest
from core.spec.run_spec import RunSpec

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 2048,
    "pad_token_id": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "gpt_neox": {"num_key_value_heads": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 176},
    "phi3": {"original_max_position_embeddings": 2048},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32},
}
NF4: dict[str, Any] = {"load_in_4bit": True}
LORA: dict[str, Any] = {}
FULL: dict[str, Any] = {"use_peft": False}
ROWS, TOKENS = 2, 512
SHAPES = {
    "plain": BatchShape(ROWS, TOKENS, ROWS * TOKENS, packed=False),
    "padded": BatchShape(ROWS, TOKENS, ROWS * TOKENS * 3 // 4, packed=False),
    "packed": BatchShape(ROWS, TOKENS, None, packed=True),
}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the configuration of a model: nothing here needs its weights."""
    from core.training.libraries import import_libraries

    import_libraries()
    from transformers import CONFIG_MAPPING

    parent = tmp_path_factory.mktemp("shapes")

    def folder(model_type: str) -> Path:
        if not (parent / model_type).is_dir():
            CONFIG_MAPPING[model_type](**{**SIZES, **OWN.get(model_type, {})}).save_pretrained(parent / model_type)
        return parent / model_type

    return folder


def both(
    model: Path, how: dict[str, Any], shape: BatchShape, attention: str, *, checkpointing: bool, on_gpu: bool,
    dropout: float = 0.05,
) -> tuple[StepBytes, Simulation]:  # fmt: skip
    """What the arithmetic and the simulation say of one step."""
    from transformers import AutoConfig

    from core.memory.activations import sizes_of, step_bytes, step_for
    from core.memory.simulate import simulate
    from core.memory.spec_estimate import adapted_by, estimate_of
    from core.memory.weights import weights_of
    from core.models.inventory import inventory_of

    architecture = detect(model)
    weights = weights_of(inventory_of(AutoConfig.from_pretrained(model), architecture.auto_class))
    by_weight = "moe" in architecture.model_type or architecture.model_type == "mixtral"
    spec = RunSpec.model_validate(
        {"model_name_or_path": str(model), "datasets": [{"path": "rows"}], "use_peft": True, "dtype": "bfloat16",
         "lora_r": 16, "lora_dropout": 0.0 if by_weight else dropout, "attn_implementation": attention,
         "activation_checkpointing": checkpointing, "gradient_accumulation_steps": 1, "packing": shape.packed,
         "per_device_train_batch_size": ROWS, "optim": "adamw_torch_fused", **how}
    )  # fmt: skip
    request = LoadRequest(model, architecture, "bfloat16", attention, "cpu")
    sizes, memory = sizes_of(architecture, weights), estimate_of(spec, weights, "bfloat16", None)
    assert sizes is not None
    assert memory is not None
    cast = 2 if spec.load_in_4bit else None
    step = step_for(spec, "bfloat16", attention, shape, on_gpu=on_gpu, cast=cast)
    step = replace(step, gradients=_gradients(memory))
    adapted = adapted_by(spec, weights) if spec.use_peft else ()
    return step_bytes(weights, sizes, step, adapted or ()), simulate(spec, request, shape, on_gpu=on_gpu)


def _gradients(memory: MemoryEstimate) -> int:
    return next(part.bytes or 0 for part in memory.parts if part.name == "gradients")


@pytest.mark.parametrize(
    ("model_type", "how", "checkpointing", "attention", "batch", "on_gpu"),
    [
        ("llama", NF4, False, "sdpa", "padded", True),
        ("llama", FULL, False, "sdpa", "packed", True),
        ("llama", LORA, True, "eager", "plain", False),
        ("qwen2", LORA, False, "sdpa", "plain", True),
        ("qwen2", NF4, True, "sdpa", "packed", True),
        ("qwen3", NF4, False, "eager", "packed", True),
        ("qwen3", FULL, True, "sdpa", "padded", True),
        ("mistral", LORA, False, "sdpa", "packed", True),
        ("granite", NF4, False, "sdpa", "plain", True),
        ("smollm3", FULL, False, "sdpa", "plain", False),
        ("smollm3", NF4, True, "eager", "padded", True),
        ("olmo2", LORA, False, "sdpa", "padded", True),
        ("phi3", NF4, False, "sdpa", "plain", True),
        ("phi3", FULL, False, "eager", "packed", True),
        ("gemma2", LORA, False, "eager", "plain", True),
        ("gpt_neox", LORA, True, "sdpa", "packed", False),
        ("gpt_neox", FULL, False, "sdpa", "plain", True),
        ("mixtral", NF4, False, "sdpa", "plain", True),
        ("qwen3_moe", LORA, False, "sdpa", "packed", True),
    ],
)
def test_the_arithmetic_is_within_five_per_cent(
    model_of: Callable[[str], Path], model_type: str, how: dict[str, Any], checkpointing: bool, attention: str,
    batch: str, on_gpu: bool,
) -> None:  # fmt: skip
    estimated, simulated = both(
        model_of(model_type), how, SHAPES[batch], attention, checkpointing=checkpointing, on_gpu=on_gpu
    )
    peak = simulated.activations + simulated.logits
    assert estimated.activations + estimated.logits == pytest.approx(peak, rel=0.05)
    assert estimated.kept == pytest.approx(simulated.kept, rel=0.05)


def test_each_setting_has_its_price(model_of: Callable[[str], Path]) -> None:
    def peak(rows: int = 2, tokens: int = 512, attention: str = "sdpa", **more: Any) -> int:
        shape = BatchShape(rows, tokens, rows * tokens, packed=False)
        settings: dict[str, Any] = {"checkpointing": False, "on_gpu": True, "dropout": 0.0, **more}
        estimated, _ = both(model_of("llama"), NF4, shape, attention, **settings)
        return estimated.activations + estimated.logits

    assert peak(checkpointing=True) < peak()
    assert peak(attention="eager") > peak()
    assert peak(dropout=0.1) > peak()
    assert peak(rows=4) == pytest.approx(2 * peak(), rel=0.02)
    eager, twice = (peak(tokens=tokens, attention="eager") for tokens in (512, 1024))
    assert twice > 2 * eager, "scores grow with the square of the length"
