"""The arithmetic of a step against real runs, and for a GPU against whole steps of the model's own code with fake
tensors, which hold what a real run holds to the byte (see test_simulation.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.memory.batch_shape import BatchShape
from core.models.architecture import detect
from core.models.loading import LoadRequest
from core.spec.run_spec import RunSpec
from tests.training.estimated import estimated
from tests.training.live_bytes import Batch, request_for, run_for_real, shape_of
from tests.wide_families import build_wide, wide_config

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
    """A folder with the configuration of a model: what is not trained for real needs no weights."""
    from core.training.libraries import import_libraries

    import_libraries()
    parent = tmp_path_factory.mktemp("shapes")

    def folder(model_type: str) -> Path:
        if not (parent / model_type).is_dir():
            wide_config(model_type).save_pretrained(parent / model_type)
        return parent / model_type

    return folder


def spec_for(model: Path, how: dict[str, Any], attention: str, *, packed: bool, rows: int, **values: Any) -> RunSpec:
    by_weight = model.name in ("mixtral", "qwen3_moe")
    return RunSpec.model_validate(
        {"model_name_or_path": str(model), "datasets": [{"path": "rows"}], "use_peft": True, "dtype": "bfloat16",
         "lora_r": 16, "lora_dropout": 0.0 if by_weight else 0.05, "attn_implementation": attention,
         "gradient_accumulation_steps": 1, "packing": packed, "per_device_train_batch_size": rows,
         "optim": "adamw_torch_fused", **how, **values}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "how", "checkpointing", "attention", "batch"),
    [
        ("llama", LORA, True, "eager", "plain"),
        ("qwen2", NF4, False, "sdpa", "padded"),
        ("smollm3", FULL, False, "sdpa", "plain"),
        ("gpt_neox", LORA, True, "sdpa", "packed"),
    ],
)
def test_it_is_within_five_per_cent_of_a_real_run(
    tmp_path: Path, model_type: str, how: dict[str, Any], checkpointing: bool, attention: str, batch: Batch
) -> None:
    from core.memory.simulate import simulate

    model, shape = build_wide(model_type, tmp_path / model_type), shape_of(batch, TOKENS // 2)
    spec = spec_for(
        model, how, attention, packed=shape.packed, rows=shape.rows, activation_checkpointing=checkpointing, max_steps=2
    )
    real = run_for_real(spec, batch, tmp_path / "run", TOKENS // 2)
    simulation = simulate(spec, request_for(spec), shape, on_gpu=False)
    assert (simulation.kept, simulation.peak) == pytest.approx((real.kept, real.peak), rel=0.02)
    for traced in (True, False):
        planned = estimated(spec, shape, on_gpu=False, traced=traced)
        assert planned.traced == traced
        assert (planned.kept, planned.peak) == pytest.approx((real.kept, real.peak), rel=0.05)


@pytest.mark.parametrize(
    ("model_type", "how", "checkpointing", "attention", "batch"),
    [
        ("llama", NF4, False, "sdpa", "padded"),
        ("llama", FULL, False, "sdpa", "packed"),
        ("qwen2", LORA, False, "sdpa", "plain"),
        ("qwen2", NF4, True, "sdpa", "packed"),
        ("qwen3", NF4, False, "eager", "packed"),
        ("mistral", LORA, False, "sdpa", "packed"),
        ("smollm3", NF4, True, "eager", "padded"),
        ("olmo2", LORA, False, "sdpa", "padded"),
        ("phi3", NF4, False, "sdpa", "plain"),
        ("phi3", FULL, False, "eager", "packed"),
        ("gemma2", LORA, False, "eager", "plain"),
        ("gpt_neox", FULL, False, "sdpa", "plain"),
        ("mixtral", NF4, False, "sdpa", "plain"),
        ("qwen3_moe", LORA, False, "sdpa", "packed"),
    ],
)
def test_on_a_gpu_formulas_are_within_five_per_cent(
    model_of: Callable[[str], Path], model_type: str, how: dict[str, Any], checkpointing: bool, attention: str,
    batch: Batch,
) -> None:  # fmt: skip
    from core.memory.simulate import simulate

    model, shape = model_of(model_type), SHAPES[batch]
    spec = spec_for(model, how, attention, packed=shape.packed, rows=ROWS, activation_checkpointing=checkpointing)
    request = LoadRequest(model, detect(model), "bfloat16", attention, "cpu")
    simulation = simulate(spec, request, shape, on_gpu=True)
    planned = estimated(spec, shape, on_gpu=True, traced=False)
    assert planned.step == pytest.approx(simulation.activations + simulation.logits, rel=0.05)
    assert planned.kept == pytest.approx(simulation.kept, rel=0.05)


def test_each_setting_has_its_price(model_of: Callable[[str], Path]) -> None:
    def peak(rows: int = 2, tokens: int = 512, attention: str = "sdpa", **more: Any) -> int:
        shape = BatchShape(rows, tokens, rows * tokens, packed=False)
        settings: dict[str, Any] = {"activation_checkpointing": False, "lora_dropout": 0.0, **more}
        spec = spec_for(model_of("llama"), NF4, attention, packed=False, rows=rows, **settings)
        return estimated(spec, shape, on_gpu=True, traced=False).step

    assert peak(activation_checkpointing=True) < peak()
    assert peak(attention="eager") > peak()
    assert peak(lora_dropout=0.1) > peak()
    assert peak(rows=4) == pytest.approx(2 * peak(), rel=0.02)
    eager, twice = (peak(tokens=tokens, attention="eager") for tokens in (512, 1024))
    assert twice > 2 * eager, "scores grow with the square of the length"
