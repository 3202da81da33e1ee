"""A simulation of training holds what training holds: compared with real runs on the CPU, by the byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.memory.simulated import Simulation, SimulationTask, cached_simulation, why_not_simulated
from core.models.architecture import detect
from core.spec.run_spec import RunSpec
from tests.families import build_family
from tests.training.estimated import estimated
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
        ("mixtral", {"dtype": "float32"}, False, "sdpa", "padded"),
        ("gpt_neox", LORA, False, "eager", "plain"),
        ("llava", LORA, True, "eager", "packed"),
        ("deepseek_v3", LORA, True, "sdpa", "padded"),
        ("glm4_moe", NF4, False, "sdpa", "padded"),
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
    planned = estimated(spec, shape_of(batch), on_gpu=False)
    assert planned.traced
    assert planned.kept == pytest.approx(real.kept, rel=0.05)
    assert planned.peak == pytest.approx(real.peak, rel=0.05)


def kept(spec: RunSpec, batch: Batch, *, on_gpu: bool) -> int:
    return simulated(spec, batch, on_gpu=on_gpu).kept


def test_on_a_gpu_dropout_keeps_a_byte_where_the_cpu_keeps_a_float(model_of: Callable[[str], Path]) -> None:
    plain, dropped = (spec_of(model_of("llama"), activation_checkpointing=False, lora_dropout=p) for p in (0.0, 0.1))
    # What goes into seven layers, twice; what comes from the embeddings, into three of them, wants no gradient.
    elements = 2 * 96 * (2 * (6 * 64 + 128) - 3 * 64)
    assert kept(dropped, "plain", on_gpu=True) - kept(plain, "plain", on_gpu=True) == elements
    assert kept(dropped, "plain", on_gpu=False) - kept(plain, "plain", on_gpu=False) == 4 * elements


def test_on_a_gpu_the_head_keeps_trained_tokens_only(model_of: Callable[[str], Path]) -> None:
    spec = spec_of(model_of("llama"), activation_checkpointing=False, lora_dropout=0.0)
    # Of each token that is padding: 64 hidden states of 16 bits, the label, two float32 of the loss.
    padding = 96 - 48
    assert kept(spec, "padded", on_gpu=False) - kept(spec, "padded", on_gpu=True) == padding * (64 * 2 + 8 + 2 * 4)
    assert kept(spec, "plain", on_gpu=False) == kept(spec, "plain", on_gpu=True)


def test_on_a_gpu_layer_norm_is_computed_in_float32(
    model_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.memory import simulated_gpu

    spec = spec_of(model_of("gpt_neox"), activation_checkpointing=False, lora_dropout=0.0)
    on_cpu, on_gpu = kept(spec, "plain", on_gpu=False), kept(spec, "plain", on_gpu=True)
    assert on_gpu > on_cpu
    monkeypatch.setattr(simulated_gpu, "_FLOAT32_OPERATIONS", simulated_gpu._FLOAT32_OPERATIONS - {"layer_norm"})
    assert kept(spec, "plain", on_gpu=True) == on_cpu


def test_gradients_of_a_step_before_are_held_while_they_accumulate(model_of: Callable[[str], Path]) -> None:
    spec = spec_of(model_of("llama"), use_peft=False, activation_checkpointing=True)
    once, twice = (
        simulated(spec.model_copy(update={"gradient_accumulation_steps": steps}), "plain").peak for steps in (1, 4)
    )
    from transformers import AutoModelForCausalLM

    weights = sum(weight.nbytes for weight in AutoModelForCausalLM.from_pretrained(model_of("llama")).parameters())
    # The model is on the disk in float32 and trained in 16 bits.
    assert twice - once == pytest.approx(weights / 2, rel=0.02)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"load_in_8bit": True}, "8-bit layers"),
        ({"load_in_4bit": True, "use_dora": True}, "DoRA on quantized"),
        ({"optim": "adafactor"}, "adafactor"),
        ({"attn_implementation": "flash_attention_2"}, "takes the padding out"),
        ({"attn_implementation": "flex_attention"}, "flex_attention"),
        ({"extra_arguments": {"neftune_noise_alpha": 5}}, "neftune_noise_alpha"),
        ({"sftui": {"start_from_adapter": "/there"}}, "adapter to start from"),
    ],
)
def test_what_would_be_wrong_is_refused(model_of: Callable[[str], Path], values: dict[str, Any], words: str) -> None:
    spec = spec_of(model_of("llama"), **values)
    why = why_not_simulated(spec, detect(model_of("llama")), shape_of("padded"))
    assert why is not None
    assert words in why


def test_a_model_that_asks_for_values_is_refused(model_of: Callable[[str], Path]) -> None:
    from core.memory.simulate import simulate_task

    spec = spec_of(model_of("longcat_flash"))
    task = SimulationTask(spec, model_of("longcat_flash"), "AutoModelForCausalLM", "bfloat16", False, shape_of("plain"))
    with pytest.raises(SftuiError, match="longcat_flash cannot be simulated here"):
        simulate_task(task)
    assert cached_simulation(task.key) is None
