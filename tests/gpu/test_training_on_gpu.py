"""Every way of training does its steps on the GPU, and what came of it loads."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from tests.gpu.on_gpu import finish, gpu_run, only

pytestmark = pytest.mark.gpu
WAYS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "bfloat16"},
    "int8": {"load_in_8bit": True, "dtype": "bfloat16"},
    "bf16": {"dtype": "bfloat16"},
    "fp16": {"dtype": "float16"},
    "fp32": {"dtype": "float32"},
    "full": {"use_peft": False, "dtype": "bfloat16", "learning_rate": 1e-4, "optim": "paged_adamw_8bit"},
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_three_steps_are_done_on_the_gpu(tiny_model: Path, rows: Path, how: dict[str, Any]) -> None:
    folder = gpu_run(tiny_model, rows, activation_checkpointing=True, **how)
    ended = finish(folder)
    assert isinstance(ended, events.RunFinished), ended
    (loaded,) = only(events.ModelLoaded, folder)
    assert (loaded.device, loaded.dtype, loaded.attention) == ("cuda:0", how["dtype"], "sdpa")
    steps = only(events.StepCompleted, folder)
    assert [step.step for step in steps] == [1, 2, 3]
    assert all(math.isfinite(step.loss) for step in steps)
    # The first step of all ways begins with the same model, but for what quantization and precision change.
    assert 0 < steps[0].loss < 2 * math.log(259)
    peak = only(events.PeakMeasured, folder)[-1]
    assert peak.device == "gpu"
    assert peak.allocated_bytes is not None and peak.reserved_bytes is not None
    assert 0 < peak.allocated_bytes <= peak.reserved_bytes < peak.bytes


def test_the_adapter_of_a_qlora_run_loads_with_peft_alone_and_answers(tiny_model: Path, rows: Path) -> None:
    folder = gpu_run(tiny_model, rows, **WAYS["nf4"])
    ended = finish(folder)
    assert isinstance(ended, events.RunFinished), ended

    import torch
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(folder.path / ended.result, device_map={"": 0})
    logits = model(torch.tensor([[5, 6, 7]], device="cuda")).logits
    assert logits.shape[:2] == (1, 3)
    assert bool(torch.isfinite(logits).all())
    weights = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    assert any(bool(weight.any()) for weight in weights), "B begins with zeros: nothing was learnt"


def test_flash_attention_runs_where_it_is_installed_and_is_refused_with_a_way_to_get_it_elsewhere(
    tiny_model: Path, rows: Path
) -> None:
    folder = gpu_run(tiny_model, rows, dtype="bfloat16", attn_implementation="flash_attention_2")
    ended = finish(folder)
    if importlib.util.find_spec("flash_attn") is None:
        assert isinstance(ended, events.RunFailed)
        assert "flash-attn is not installed" in ended.message
        assert not only(events.ModelLoaded, folder)
    else:
        assert isinstance(ended, events.RunFinished), ended
        (loaded,) = only(events.ModelLoaded, folder)
        assert loaded.attention == "flash_attention_2"


def test_a_probe_leaves_the_run_as_it_would_be_without_it_and_tells_its_peak(tiny_model: Path, rows: Path) -> None:
    losses = []
    for probes in (False, True):
        folder = gpu_run(
            tiny_model, rows, **WAYS["nf4"], gradient_accumulation_steps=2, lora_dropout=0.1, sftui={"probe": probes}
        )
        ended = finish(folder)
        assert isinstance(ended, events.RunFinished), ended
        losses.append([step.loss for step in only(events.StepCompleted, folder)])
    # Kernels on a GPU may add up in another order each time.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    (probed,) = only(events.MemoryProbed, folder)
    peak = only(events.PeakMeasured, folder)[-1]
    assert probed.device == "gpu"
    assert peak.bytes <= probed.bytes * 1.02, "the probe met the longest rows, and the run held more"
