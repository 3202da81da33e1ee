"""Which attention kernels work on which machine for which model, and what is said of the others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import starter
from core.devices.host import HostSnapshot
from core.memory.plan import ModelFacts, make_plan, read_model
from core.models import attention
from core.models.architecture import Architecture
from core.models.attention import AttentionOption, attention_choices, attention_problem, choose_attention
from core.spec.build import check_values
from core.spec.run_spec import RunSpec
from tests.unit.test_choose_device import NONE, gpu, reading

TURING = gpu(0, name="Tesla T4", compute_capability=(7, 5))
AMPERE = gpu(0, name="NVIDIA A100", compute_capability=(8, 0))
HOPPER = gpu(0, name="NVIDIA H100", compute_capability=(9, 0))
BLACKWELL = gpu(0, name="NVIDIA B200", compute_capability=(10, 0))
EVERYTHING = {"flash_attn", "flash_attn_interface", "kernels"}
KERNEL = "kernels-community/flash-attn2"


@pytest.fixture(scope="module")
def starter_model() -> ModelFacts:
    return read_model(str(starter.MODEL))


@pytest.fixture
def llama(starter_model: ModelFacts) -> Architecture:
    return replace(starter_model.architecture, model_type="llama", auto_class="AutoModelForCausalLM")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    there: set[str] = set()
    monkeypatch.setattr(attention, "_installed", lambda package: package in there)
    return there


def spec(**values: Any) -> RunSpec:
    checked = check_values({"model_name_or_path": "m", "datasets": ["d"], "use_peft": True, **values})
    assert checked.spec is not None, checked.problems
    return checked.spec


def by_name(*arguments: Any) -> dict[str, AttentionOption]:
    return {option.name: option for option in attention_choices(*arguments)}


def available(*arguments: Any) -> list[str]:
    return [option.name for option in attention_choices(*arguments) if option.available]


def test_every_option_says_why_and_those_that_can_be_had_say_how(llama: Architecture, installed: set[str]) -> None:
    options = by_name(AMPERE, llama)
    assert list(options)[:5] == ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
    assert all(option.reason for option in options.values())
    assert available(AMPERE, llama) == ["eager", "sdpa", "flex_attention"]
    assert "pip install flash-attn" in options["flash_attention_2"].how_to_get
    assert "sftui.allow_hub_kernels" in options[KERNEL].how_to_get
    assert "pip install kernels" in options[KERNEL].how_to_get
    # No package makes an A100 a Hopper.
    assert options["flash_attention_3"].how_to_get == ""
    assert "NVIDIA A100 has 8.0" in options["flash_attention_3"].reason


@pytest.mark.parametrize(
    ("device", "names"),
    [
        (None, ["eager", "sdpa"]),
        (TURING, ["eager", "sdpa", "flex_attention"]),
        (AMPERE, ["eager", "sdpa", "flash_attention_2", "flex_attention"]),
        (HOPPER, ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]),
        (BLACKWELL, ["eager", "sdpa", "flash_attention_2", "flex_attention"]),
    ],
    ids=["cpu", "turing", "ampere", "hopper", "blackwell"],
)
def test_with_everything_installed_the_gpu_decides(
    llama: Architecture, installed: set[str], device: Any, names: list[str]
) -> None:
    installed.update(EVERYTHING)
    assert available(device, llama) == names


def test_a_hub_kernel_needs_permission_by_its_own_name_and_the_package(
    llama: Architecture, installed: set[str]
) -> None:
    assert "kernels is not installed" in by_name(AMPERE, llama, [KERNEL])[KERNEL].reason
    installed.add("kernels")
    assert by_name(AMPERE, llama, [KERNEL])[KERNEL].available
    assert not by_name(AMPERE, llama, ["kernels-community/other"])[KERNEL].available
    assert not by_name(AMPERE, llama)[KERNEL].available
    assert not by_name(None, llama, [KERNEL])[KERNEL].available


@pytest.mark.parametrize(
    ("model_type", "chosen"),
    [
        ("llama", "sdpa"),
        ("qwen3", "sdpa"),
        ("gemma3_text", "sdpa"),
        ("gemma2", "eager"),
        ("gpt_oss", "eager"),
        ("mamba", "eager"),
        ("bloom", "eager"),
        ("no_such_type", "sdpa"),
    ],
)
def test_without_a_wish_a_model_gets_what_its_class_can(llama: Architecture, model_type: str, chosen: str) -> None:
    choice = choose_attention(spec(), HOPPER, replace(llama, model_type=model_type))
    assert choice.value == chosen
    assert choice.reason
    if chosen == "eager":
        assert model_type in choice.reason


def test_a_vision_language_class_is_looked_up_in_its_own_table(llama: Architecture) -> None:
    llava = replace(llama, model_type="llava", auto_class="AutoModelForImageTextToText")
    assert choose_attention(spec(), None, llava).value == "sdpa"


@pytest.mark.parametrize(
    ("wish", "device", "dtype", "words"),
    [
        ("flash_attention_2", None, "bfloat16", "NVIDIA GPU"),
        ("flash_attention_2", TURING, "float16", "compute capability 8.0"),
        ("flash_attention_2", HOPPER, "bfloat16", "flash-attn is not installed"),
        ("flash_attention_3", AMPERE, "bfloat16", "Hopper"),
        ("flash_attention_3", HOPPER, "bfloat16", "flash_attn_interface is not installed"),
        ("flex_attention", None, "bfloat16", "NVIDIA GPU"),
        (KERNEL, HOPPER, "bfloat16", "nobody has allowed"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_to_get_it(
    llama: Architecture, installed: set[str], wish: str, device: Any, dtype: str, words: str
) -> None:
    problem = attention_problem(spec(attn_implementation=wish), device, llama, dtype)
    assert problem is not None
    assert (problem.field, problem.level) == ("attn_implementation", "error")
    assert words in problem.message
    assert "attn_implementation empty" in problem.fix
    assert ("pip install" in problem.fix) == (words == "flash-attn is not installed" or wish == KERNEL)


def test_flash_attention_in_float32_is_refused(llama: Architecture, installed: set[str]) -> None:
    installed.update(EVERYTHING)
    wish = spec(attn_implementation="flash_attention_2")
    assert attention_problem(wish, HOPPER, llama, "bfloat16") is None
    problem = attention_problem(wish, HOPPER, llama, "float32")
    assert problem is not None
    assert "float32" in problem.message
    sdpa = spec(attn_implementation="sdpa")
    assert attention_problem(sdpa, HOPPER, llama, "float32") is None
    refused = attention_problem(sdpa, HOPPER, replace(llama, model_type="gemma2"), "float32")
    assert refused is not None
    assert "gemma2" in refused.message


def test_the_plan_says_it_before_anything_starts(starter_model: ModelFacts, tmp_path: Path) -> None:
    host = HostSnapshot(4, 0.0, 10**9, 10**9, 10**9, 10**9, "A CPU")
    asked = spec(attn_implementation="flash_attention_2")
    fields = [problem.field for problem in make_plan(asked, starter_model, NONE, host).problems]
    assert "attn_implementation" in fields
    fine = make_plan(spec(), starter_model, reading(HOPPER), host)
    assert "attn_implementation" not in [problem.field for problem in fine.problems]
