"""The type that a run computes in, with its reason."""

from pathlib import Path
from typing import Any

import pytest

from core.devices.host import has_bfloat16_matrices
from core.models.precision import DTYPE_BYTES, choose_dtype
from core.spec.build import check_values
from core.spec.run_spec import RunSpec
from tests.unit.test_choose_device import gpu

TURING = gpu(0, compute_capability=(7, 5))
HOPPER = gpu(0, compute_capability=(9, 0))
UNKNOWN = gpu(0, compute_capability=None)


def spec(**values: Any) -> RunSpec:
    checked = check_values({"model_name_or_path": "m", "datasets": ["d"], "use_peft": True, **values})
    assert checked.spec is not None
    return checked.spec


@pytest.mark.parametrize(
    ("stored", "value", "reason"),
    [
        ("float32", "float32", "the checkpoint's own type, on the CPU"),
        ("bfloat16", "bfloat16", "the checkpoint's own type, on the CPU"),
        ("float16", "float32", "the checkpoint stores float16, which a CPU computes very slowly"),
        (None, "float32", "the checkpoint names no type; on the CPU"),
        ("float8_e4m3fn", "float32", "the checkpoint names no type; on the CPU"),
    ],
)
def test_on_the_cpu_it_follows_the_checkpoint(stored: str | None, value: str, reason: str) -> None:
    choice = choose_dtype(spec(), stored, None, cpu_has_bfloat16=True)
    assert (choice.name, choice.value, choice.reason) == ("dtype", value, reason)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16", None])
def test_a_recent_gpu_computes_in_bfloat16(stored: str | None) -> None:
    choice = choose_dtype(spec(), stored, HOPPER)
    assert choice.value == "bfloat16"
    assert "compute capability 9.0" in choice.reason
    assert choose_dtype(spec(), stored, gpu(0, compute_capability=(8, 0))).value == "bfloat16"
    assert choose_dtype(spec(), stored, UNKNOWN).value == "bfloat16"
    assert "L0" in choose_dtype(spec(), stored, UNKNOWN).reason


def test_full_fine_tuning_keeps_float32_where_it_is_stored() -> None:
    assert choose_dtype(spec(use_peft=False), "float32", HOPPER).value == "float32"
    assert choose_dtype(spec(use_peft=False), "bfloat16", HOPPER).value == "bfloat16"


@pytest.mark.parametrize("wish", ["auto", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16", None])
def test_a_gpu_before_ampere_has_no_bfloat16(wish: str, stored: str | None) -> None:
    adapters = choose_dtype(spec(dtype=wish), stored, TURING)
    assert (adapters.value, adapters.reason) == ("float16", "compute capability 7.5 has no bfloat16")
    # The gradients of float16 weights cannot be scaled.
    full = choose_dtype(spec(dtype=wish, use_peft=False), stored, TURING)
    assert full.value == "float32"
    assert "7.5" in full.reason


@pytest.mark.parametrize("wish", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for_is_used_where_it_works(wish: str) -> None:
    assert choose_dtype(spec(dtype=wish), "float32", HOPPER).value == wish
    assert choose_dtype(spec(dtype=wish), "float32", HOPPER).reason == "as asked for"
    on_cpu = choose_dtype(spec(dtype=wish), "bfloat16", None)
    if wish == "float16":
        assert (on_cpu.value, on_cpu.reason) == ("float32", "training in float16 needs a GPU")
    else:
        assert (on_cpu.value, on_cpu.reason) == (wish, "as asked for")
    assert choose_dtype(spec(dtype="float32"), "bfloat16", TURING).value == "float32"


def test_a_cpu_that_would_emulate_bfloat16_computes_in_float32() -> None:
    choice = choose_dtype(spec(), "bfloat16", None, cpu_has_bfloat16=False)
    assert choice.value == "float32"
    assert "no matrix unit" in choice.reason
    asked = choose_dtype(spec(dtype="bfloat16"), "bfloat16", None, cpu_has_bfloat16=False)
    assert (asked.value, asked.reason) == ("bfloat16", "as asked for")


def test_the_processor_is_asked_for_its_flags(tmp_path: Path) -> None:
    amx, plain = tmp_path / "amx", tmp_path / "plain"
    amx.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n")
    plain.write_text("model name\t: amx_bf16\nflags\t\t: fpu avx2 avx512_bf16\n")
    assert has_bfloat16_matrices(amx)
    assert not has_bfloat16_matrices(plain)
    assert not has_bfloat16_matrices(tmp_path / "none")


def test_four_bit_layers_never_compute_in_float32_unless_that_is_asked_for() -> None:
    quantized = {"load_in_4bit": True}
    for stored in ("float32", "bfloat16", "float16", None):
        for device in (TURING, HOPPER, UNKNOWN):
            assert choose_dtype(spec(**quantized), stored, device).value in ("bfloat16", "float16")
    choice = choose_dtype(spec(**quantized, dtype="float32"), "bfloat16", HOPPER)
    assert choice.value == "float32"
    assert "faster in 16 bits" in choice.reason


def test_weights_in_float16_are_trained_by_adapters_only() -> None:
    choice = choose_dtype(spec(dtype="float16", use_peft=False), "float16", HOPPER)
    assert (choice.value, choice.reason) == ("float32", "weights in float16 cannot be trained")


def test_every_type_has_its_size() -> None:
    assert DTYPE_BYTES == {"float32": 4, "bfloat16": 2, "float16": 2}
