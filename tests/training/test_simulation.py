"""A simulation of training holds what training holds: compared with real runs on the CPU, by the byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.memory.simulated import Simulation
from core.spec.run_spec import RunSpec
from tests.families import build_family
from tests.training.live_bytes import Batch, request_for, run_for_real, shape_of

NF4: dict[str, Any] = {"load_in_4bit": True}
LORA: dict[str, Any] = {}
FULL: dict[str, Any] = {"use_peft": False}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, made once."""
    from core.training.libraries import import_libraries

    import_libraries()
    parent = tmp_path_factory.mktemp("families")

    def folder(family: str) -> Path:
        return parent / family if (parent / family).is_dir() else build_family(family, parent / family)

    return folder


def spec_of(model: Path, **values: Any) -> RunSpec:
    base = {
        "model_name_or_path": str(model), "datasets": [{"path": "rows"}], "use_peft": True, "dtype": "bfloat16",
        "lora_r": 3, "lora_dropout": 0.1, "attn_implementation": "sdpa", "max_steps": 2,
        "gradient_accumulation_steps": 1, "per_device_train_batch_size": 2,
    }  # fmt: skip
    return RunSpec.model_validate({**base, **values})


def simulated(spec: RunSpec, batch: Batch, *, on_gpu: bool = False) -> Simulation:
    from core.memory.simulate import simulate

    return simulate(spec, request_for(spec), shape_of(batch), on_gpu=on_gpu)


def spec_for(model: Path, batch: Batch, **values: Any) -> RunSpec:
    packed = {"packing": True, "per_device_train_batch_size": 1} if batch == "packed" else {}
    return spec_of(model, **packed, **values)


@pytest.mark.parametrize(
    ("family", "how", "checkpointing", "attention", "batch"),
    [
        ("llama", NF4, True, "sdpa", "padded"),
        ("llama", LORA, False, "eager", "packed"),
        ("llama", FULL, True, "eager", "plain"),
        ("qwen3", NF4, False, "sdpa", "packed"),
        ("qwen3", FULL, False, "sdpa", "padded"),
        ("gemma3_text", LORA, True, "sdpa", "plain"),
        ("gemma3_text", NF4, False, "eager", "padded"),
        ("phi3", NF4, True, "eager", "packed"),
        ("mistral", LORA, False, "sdpa", "plain"),
        ("mixtral", NF4, True, "sdpa", "packed"),
        ("gpt_neox", LORA, False, "eager", "plain"),
        ("falcon_h1", NF4, True, "eager", "padded"),
        ("llava", LORA, True, "eager", "packed"),
        ("qwen2_moe", NF4, False, "eager", "plain"),
        ("deepseek_v3", LORA, True, "sdpa", "padded"),
        ("glm4_moe", NF4, False, "sdpa", "padded"),
        ("ernie4_5_moe", LORA, True, "sdpa", "packed"),
    ],
)
def test_it_holds_what_a_real_run_holds(
    model_of: Callable[[str], Path], tmp_path: Path, family: str, how: dict[str, Any], checkpointing: bool,
    attention: str, batch: Batch,
) -> None:  # fmt: skip
    spec = spec_for(
        model_of(family), batch, activation_checkpointing=checkpointing, attn_implementation=attention, **how
    )
    real = run_for_real(spec, batch, tmp_path / "run")
    found = simulated(spec, batch)
    assert found.kept == pytest.approx(real.kept, rel=0.02)
    assert found.peak == pytest.approx(real.peak, rel=0.02)
