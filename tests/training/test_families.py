"""Nine families of models, each in every precision and quantization, train for real through the same code path."""

import math
from pathlib import Path
from typing import Any

import pytest

from core.memory.plan import plan_here
from core.models.architecture import detect
from core.models.inventory_file import Inventory, keep_inventory
from core.runs import events
from core.spec.yaml_file import read_spec
from tests.families import FAMILIES, build_family
from tests.training.runs import make_run
from tests.training.test_worker import only, train

QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "float32"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "dtype": "bfloat16"},
    "int8": {"load_in_8bit": True, "dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "float32": {"dtype": "float32"},
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each family's model."""
    folder = tmp_path_factory.mktemp("families")
    return {name: build_family(name, folder / name) for name in FAMILIES}


@pytest.fixture(scope="session")
def inventories(models: dict[str, Path]) -> dict[str, Inventory]:
    """What each family's model is made of."""
    from core.models.inventory import build_inventory

    return {name: build_inventory(folder, detect(folder).auto_class) for name, folder in models.items()}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_in_every_precision(
    models: dict[str, Path], inventories: dict[str, Inventory], rows: Path, family: str, quantization: str
) -> None:
    chosen = QUANTIZATIONS[quantization]
    keep_inventory(models[family], inventories[family])
    folder = make_run(models[family], rows, max_length=64, **chosen)
    plan = plan_here(read_spec(folder.spec_file))
    assert [problem for problem in plan.problems if problem.level == "error"] == []

    told = train(folder)

    assert only(told, events.RunFinished).step == 3, "\n".join(map(str, told[-1:]))
    losses = [event.loss for event in told if isinstance(event, events.StepCompleted)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[0] != losses[-1], "nothing was learned"
    loaded = only(told, events.ModelLoaded)
    assert (loaded.model_type, loaded.dtype) == (family, chosen["dtype"])
    assert loaded.attention in ("sdpa", "eager")
    adapted = only(told, events.ModelAdapted)
    assert 0 < adapted.trainable_parameters < adapted.total_parameters
    assert plan.memory is not None
    parts = {part.name: part.bytes or 0 for part in plan.memory.parts}
    assert loaded.weight_bytes == parts["base_weights"] + parts["quantization_constants"], "planned to the byte"
    assert adapted.trainable_parameters == plan.memory.trainable_parameters
    progress = [event for event in told if isinstance(event, events.LoadProgressed)]
    assert progress[-1].done_bytes == progress[-1].total_bytes > 0

    from peft import PeftModel
    from safetensors import safe_open

    with safe_open(folder.adapter / "adapter_model.safetensors", framework="pt") as file:
        moved = [name for name in file.keys() if "lora_B" in name and file.get_tensor(name).any()]  # noqa: SIM118
    assert moved, "the adapter is as it began"
    if quantization == "float32":
        import transformers

        auto_class = getattr(transformers, loaded.auto_class)
        tuned = PeftModel.from_pretrained(auto_class.from_pretrained(str(models[family])), str(folder.adapter))
        assert any(parameter.any() for name, parameter in tuned.named_parameters() if "lora_B" in name)
