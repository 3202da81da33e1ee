"""A simulation of training holds what training holds: compared with real runs on the CPU, by the byte."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.memory.batch_shape import BatchShape
from core.memory.simulated import Simulation, SimulationTask, cached_simulation, why_not_simulated
from core.models.architecture import detect
from core.spec.run_spec import RunSpec
from tests.families import build_family
from tests.training.estimated import estimated
from tests.training.live_bytes import Batch, request_for, run_for_real, shape_of
from tests.wide_families import wide_config

NF4: dict[str, Any] = {"load_in_4bit": True}
INT8: dict[str, Any] = {"load_in_8bit": True}
DORA: dict[str, Any] = {"use_dora": True}
OFFLOADED: dict[str, Any] = {"extra_arguments": {"activation_offloading": True}}
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
        ("mixtral", NF4, True, "sdpa", "packed"),
        ("mixtral", {"dtype": "float32"}, False, "sdpa", "padded"),
        ("gpt_neox", LORA, False, "eager", "plain"),
        ("llava", LORA, True, "eager", "packed"),
        ("deepseek_v3", LORA, True, "sdpa", "padded"),
        ("glm4_moe", NF4, False, "sdpa", "padded"),
        ("llama", INT8, True, "sdpa", "plain"),
        ("deepseek_v3", INT8, False, "eager", "padded"),
        ("phi3", INT8 | {"dtype": "float32"}, True, "sdpa", "packed"),
        ("qwen3", NF4 | DORA, False, "sdpa", "plain"),
        ("llama", INT8 | DORA, True, "eager", "padded"),
        ("gpt_neox", DORA | {"lora_dropout": 0.0}, False, "sdpa", "packed"),
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


@pytest.mark.parametrize("bits", [4, 8])
def test_so_it_does_for_a_checkpoint_that_is_stored_quantized(
    model_of: Callable[[str], Path], tmp_path: Path, bits: int
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_use_double_quant=True)
    stored = shutil.copytree(model_of("llama"), tmp_path / "stored")
    # What is not quantized is in another type than the run's in one of them.
    dtype = torch.bfloat16 if bits == 8 else torch.float32
    whole = AutoModelForCausalLM.from_pretrained(stored, quantization_config=how, device_map={"": "cpu"}, dtype=dtype)
    (stored / "model.safetensors").unlink()
    whole.save_pretrained(stored)
    hold_what_is_held(spec_of(stored), tmp_path, planned=bits == 8)


@pytest.mark.parametrize("how", [LORA, NF4], ids=["bf16", "nf4"])
def test_and_for_an_adapter_to_start_from_which_decides_for_itself(
    model_of: Callable[[str], Path], tmp_path: Path, how: dict[str, Any]
) -> None:
    from core.models.adapters import attach_adapters
    from core.models.loading import load_model

    own = {"lora_r": 5, "lora_dropout": 0.0, "lora_target_modules": ["q_proj", "down_proj"], "use_dora": True}
    made = spec_of(model_of("llama"), **own)
    loaded = load_model(made, request_for(made), lambda title, message: None)
    attach_adapters(loaded, made).save_pretrained(tmp_path / "adapter")
    spec = spec_of(
        model_of("llama"),
        activation_checkpointing=False,
        sftui={"start_from_adapter": str(tmp_path / "adapter")},
        **how,
    )
    hold_what_is_held(spec, tmp_path)

    # It is the adapter's files that a kept answer is known by.
    def key() -> str:
        return SimulationTask(spec, model_of("llama"), "AutoModelForCausalLM", "bfloat16", False, shape_of("plain")).key

    before = key()
    other = spec_of(model_of("llama"), lora_r=6)
    loaded = load_model(other, request_for(other), lambda title, message: None)
    attach_adapters(loaded, other).save_pretrained(tmp_path / "adapter")
    assert key() != before


def hold_what_is_held(spec: RunSpec, folder: Path, *, planned: bool = True) -> None:
    real, found = run_for_real(spec, "plain", folder / "run"), simulated(spec, "plain")
    assert (found.kept, found.peak) == pytest.approx((real.kept, real.peak), rel=0.02)
    told = estimated(spec, shape_of("plain"), on_gpu=False)
    assert told.traced
    assert told.peak == pytest.approx(real.peak, rel=0.05)
    # Layers are traced as if all that is not quantized had one type.
    assert not planned or told.kept == pytest.approx(real.kept, rel=0.05)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_offloading_leaves_what_it_leaves_of_real_tensors(
    model_of: Callable[[str], Path], tmp_path: Path, checkpointing: bool
) -> None:
    spec = spec_of(model_of("llama"), activation_checkpointing=checkpointing)
    plain, real = (
        run_for_real(spec, "plain", tmp_path / "a"),
        run_for_real(spec, "plain", tmp_path / "b", offloads=True),
    )
    assert real.losses == plain.losses
    assert real.kept < plain.kept
    found = simulated(spec.model_copy(update=OFFLOADED), "plain")
    assert (found.kept, found.peak) == pytest.approx((real.kept, real.peak), rel=0.02)


def test_traces_tell_what_offloading_leaves_on_a_gpu(tmp_path: Path) -> None:
    shape = BatchShape(2, 1024, 2048, packed=False)
    wide_config("mistral").save_pretrained(tmp_path)
    for values in ({}, NF4 | {"lora_dropout": 0.0}):
        spec = spec_of(tmp_path, activation_checkpointing=False, **OFFLOADED, **values)
        by_traces, held = estimated(spec, shape, on_gpu=True), simulated_on_gpu(spec, shape)
        assert by_traces.kept == pytest.approx(held.kept, rel=0.1)
        whole = estimated(spec.model_copy(update={"extra_arguments": {}}), shape, on_gpu=True)
        assert whole.kept > 2 * by_traces.kept


def simulated_on_gpu(spec: RunSpec, shape: BatchShape) -> Simulation:
    from core.memory.simulate import simulate

    return simulate(spec, request_for(spec), shape, on_gpu=True)


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
        ({"optim": "adafactor"}, "adafactor"),
        ({"attn_implementation": "flash_attention_2"}, "takes the padding out"),
        ({"attn_implementation": "flex_attention"}, "flex_attention"),
        ({"extra_arguments": {"neftune_noise_alpha": 5}}, "neftune_noise_alpha"),
        ({"sftui": {"start_from_adapter": "/there"}}, "adapter to start from cannot be read"),
    ],
)
def test_what_would_be_wrong_is_refused(model_of: Callable[[str], Path], values: dict[str, Any], words: str) -> None:
    spec = spec_of(model_of("llama"), **values)
    why = why_not_simulated(spec, detect(model_of("llama")), shape_of("padded"))
    assert why is not None
    assert words in why


def test_one_that_is_stored_in_another_quantization_is_refused_by_name(model_of: Callable[[str], Path]) -> None:
    stored = replace(detect(model_of("llama")), stored_quantization="gptq 4-bit")
    assert "stored in gptq 4-bit" in str(why_not_simulated(spec_of(model_of("llama")), stored, shape_of("plain")))


def test_a_model_that_asks_for_values_is_refused(model_of: Callable[[str], Path]) -> None:
    from core.memory.simulate import simulate_task

    spec = spec_of(model_of("longcat_flash"))
    task = SimulationTask(spec, model_of("longcat_flash"), "AutoModelForCausalLM", "bfloat16", False, shape_of("plain"))
    with pytest.raises(SftuiError, match="longcat_flash cannot be simulated here"):
        simulate_task(task)
    assert cached_simulation(task.key) is None
