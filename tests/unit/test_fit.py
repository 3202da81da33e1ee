"""The fastest spec that fits: which changes, in which order, what each saves, and what is said when none is enough."""

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from core import starter
from core.choice import Choice
from core.data.token_statistics import Batching, TokenCounts, TokenStatistics, statistics
from core.devices.gpu import GpuSnapshot
from core.errors import SftuiError
from core.memory.estimate import MemoryEstimate, MemoryPart, Verdict
from core.memory.fit import Fit, Known, find_fit, with_changes
from core.memory.fit_ladder import applied, smaller
from core.memory.plan import Plan, PlanDevice
from core.memory.room import MOST_ROWS, PlanOf, room
from core.memory.speed import relative_time, speed_words
from core.models.architecture import Architecture, detect
from core.spec.build import check_values
from core.spec.presets import PRESETS
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from tests.unit.test_choose_device import gpu

GB = 10**9
GPU = gpu(0, 20 * GB, total_bytes=24 * GB, name="NVIDIA L4")
PARAMETERS = 8 * GB
LAYERS, WIDTH = 32, 4096


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return detect(starter.MODEL)


def spec(preset: str = "lora", **values: Any) -> RunSpec:
    base = {"model_name_or_path": str(starter.MODEL), "datasets": [str(starter.TRAIN_DATA)]}
    checked = check_values({**base, **PRESETS[preset].values, **values})
    assert checked.spec is not None, checked.problems
    return checked.spec


def plans(free: float, *, parameters: int = PARAMETERS, stored: str = "bfloat16", asked: list[RunSpec]) -> PlanOf:
    """Plans of a model of eight billion weights, by formulas rougher than the real ones and of the same shape."""

    def plan_of(spec: RunSpec) -> Plan:
        asked.append(spec)
        dtype = stored if spec.dtype == "auto" else spec.dtype
        bits = {"none": 32 if dtype == "float32" else 16, "int8": 8, "nf4": 4, "fp4": 4}[spec.quantization]
        weights = parameters * bits // 8
        constants = 0 if bits > 8 else parameters // (256 if bits == 8 or spec.use_bnb_nested_quant else 16)
        adapters = 0 if not spec.use_peft else LAYERS * 20 * WIDTH * spec.lora_r * (2 if bits <= 8 else 4)
        trained = adapters or weights
        state = trained // 2 if spec.optim.endswith("8bit") else 2 * trained
        tokens = spec.per_device_train_batch_size * (spec.max_length or 1024)
        attention = spec.attn_implementation or "sdpa"
        kept = tokens * WIDTH * 2 * (LAYERS if spec.activation_checkpointing else LAYERS * 20)
        if attention == "eager":
            kept += tokens * (spec.max_length or 1024) * 64 * (1 if spec.activation_checkpointing else LAYERS)
        if spec.extra_arguments.get("activation_offloading"):
            kept //= 8
        parts = {
            "base_weights": weights, "quantization_constants": constants, "adapter_weights": adapters,
            "gradients": trained, "optimizer_state": state, "activations": kept + tokens * WIDTH * 40,
            "logits": tokens * 4, "allocator_and_context": GB // 2,
        }  # fmt: skip
        memory = MemoryEstimate(tuple(MemoryPart(name, size, "") for name, size in parts.items()), 1, parameters, 0, 0)
        word: Verdict = "fits" if memory.known_bytes < 0.92 * free else "tight"
        word = word if memory.known_bytes <= free else "does_not_fit"
        chosen = (Choice("dtype", dtype, ""), Choice("attn_implementation", attention, ""))
        device = PlanDevice("NVIDIA L4", "gpu", 24 * GB, int(free), 0, "GPU-0")
        return Plan(memory, device, word, f"{memory.known_bytes} of {free}", chosen, ())

    return plan_of


def fit(asked_spec: RunSpec, free: float, architecture: Architecture, **more: Any) -> Fit:
    tokens = more.pop("tokens", None)
    known = Known(architecture, more.pop("gpu", GPU), tokens=tokens)
    return find_fit(asked_spec, plans(free, asked=[], **more), known)


def effective(spec: RunSpec) -> int:
    return spec.per_device_train_batch_size * spec.gradient_accumulation_steps


def titles(found: Fit) -> list[str]:
    return [change.title for change in found.changes]


def test_a_run_that_is_a_little_too_large_gets_smaller_batches_before_anything_slower(
    architecture: Architecture,
) -> None:
    found = fit(spec(per_device_train_batch_size=16, gradient_accumulation_steps=1), 30 * GB, architecture)
    assert found.goal == "fit"
    assert found.fits
    assert titles(found) == ["Batch 8, accumulation 2"]
    (change,) = found.changes
    assert change.sets == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    assert "the effective batch stays 16" in change.reason
    before, after = found.before.memory, found.after.memory
    assert before is not None
    assert after is not None
    assert change.saved_bytes == before.known_bytes - after.known_bytes > 0


def test_sixteen_bit_weights_that_are_too_large_alone_go_to_four_bit(architecture: Architecture) -> None:
    found = fit(spec(), 12 * GB, architecture)
    assert found.after.verdict == "fits"
    assert titles(found)[-1] == "Base model in 4 bit"
    tuned = with_changes(found.spec, found.changes)
    assert (tuned.quantization, tuned.use_bnb_nested_quant, effective(tuned)) == ("nf4", True, 16)
    assert "takes about" in found.changes[-1].speed


def test_checkpointing_is_turned_on_where_activations_are_what_is_too_much(architecture: Architecture) -> None:
    found = fit(spec(activation_checkpointing=False), 21 * GB, architecture)
    assert found.after.verdict == "fits"
    assert "Checkpointing on" in titles(found)
    assert all(change.saved_bytes > 0 for change in found.changes)


def test_every_weight_is_trained_as_long_as_that_can_fit_and_adapters_are_the_last_resort(
    architecture: Architecture,
) -> None:
    whole = spec("full", activation_checkpointing=False)
    roomy = fit(whole, 46 * GB, architecture)
    assert roomy.fits
    assert with_changes(whole, roomy.taken).method == "full"
    assert {"adamw_8bit", "Checkpointing on"} <= set(titles(roomy))
    narrow = fit(whole, 24 * GB, architecture)
    assert narrow.fits
    adapted = with_changes(whole, narrow.taken)
    assert adapted.method == "lora"
    assert adapted.learning_rate == 2e-4, "adapters learn with larger steps"


def test_the_attention_matrix_is_not_held_where_another_kernel_is_there(architecture: Architecture) -> None:
    found = fit(spec(attn_implementation="eager", max_length=8192), 36 * GB, architecture)
    assert found.fits
    assert "sdpa" in titles(found)


def test_what_fits_only_just_is_made_to_fit(architecture: Architecture) -> None:
    at = plans(1e15, asked=[])(spec()).memory
    assert at is not None
    free = at.known_bytes * 1.02
    assert plans(free, asked=[])(spec()).verdict == "tight"
    found = fit(spec(), free, architecture)
    assert (found.goal, found.before.verdict, found.after.verdict) == ("fit", "tight", "fits")


def test_when_nothing_is_enough_the_smallest_is_shown_with_what_it_lacks(architecture: Architecture) -> None:
    found = fit(spec(), 3 * GB, architecture)
    assert not found.fits
    memory = found.after.memory
    assert memory is not None
    assert found.missing_bytes == memory.known_bytes - 3 * GB > 0
    smallest = with_changes(found.spec, found.taken)
    assert (smallest.quantization, smallest.per_device_train_batch_size) == ("nf4", 1)
    assert effective(smallest) == 16
    assert all(change.saved_bytes > 0 for change in found.changes)


def test_memory_that_is_left_over_is_spent_on_speed(architecture: Architecture) -> None:
    slow = spec("qlora", per_device_train_batch_size=1, gradient_accumulation_steps=16, optim="paged_adamw_8bit")
    found = fit(slow, 70 * GB, architecture)
    assert found.goal == "fast"
    assert found.after.verdict == "fits"
    assert {"Checkpointing off", "Base model in 16 bit"} <= set(titles(found))
    fast = with_changes(slow, found.taken)
    assert effective(fast) == 16
    assert "faster" in found.speed or "as fast" in found.speed
    assert all(change.saved_bytes <= 0 for change in found.changes if change.title == "Checkpointing off")


def test_nothing_is_proposed_where_everything_is_as_fast_as_it_gets(architecture: Architecture) -> None:
    found = fit(spec(activation_checkpointing=False), 300 * GB, architecture)
    assert (found.goal, found.changes, found.speed) == ("fast", (), "")
    assert found.after == found.before


def test_a_spec_whose_size_is_not_known_is_not_guessed_at(architecture: Architecture) -> None:
    def unknown(asked: RunSpec) -> Plan:
        return replace(plans(GB, asked=[])(asked), verdict="unknown", verdict_reason="activations are not counted yet")

    with pytest.raises(SftuiError, match="activations are not counted yet"):
        find_fit(spec(), unknown, Known(architecture, GPU))


def test_settings_that_contradict_the_spec_are_not_tried(architecture: Architecture) -> None:
    pissa = spec(sftui={"init_lora_weights": "pissa"})
    found = fit(pissa, 12 * GB, architecture)
    assert not found.fits
    assert with_changes(pissa, found.taken).quantization == "none"
    stored = replace(architecture, stored_quantization="gptq 4-bit")
    assert with_changes(spec(), fit(spec(), 12 * GB, stored).taken).quantization == "none"


def test_a_model_that_refuses_a_setting_keeps_the_one_it_has(architecture: Architecture) -> None:
    def refusing(asked: RunSpec) -> Plan:
        plan = plans(14 * GB, asked=[])(asked)
        wrong = Problem("load_in_4bit", "error", "is nothing for this model.", "")
        return replace(plan, problems=(wrong,)) if asked.load_in_4bit else plan

    found = find_fit(spec(), refusing, Known(architecture, GPU))
    assert found.fits
    assert with_changes(spec(), found.taken).quantization == "int8"


def counted(lengths: list[int], **values: Any) -> TokenStatistics:
    counts = TokenCounts(len(lengths))
    n = len(lengths)
    counts.add({"start": 0, "stop": n, "lengths": lengths, "trained": lengths, "first": [0] * n,
                "last": [length - 1 for length in lengths], "refused": []})  # fmt: skip
    return statistics(counts, Batching.of(spec(**values)))


def test_packing_is_suggested_for_short_rows_and_left_to_the_user(architecture: Architecture) -> None:
    one = spec(per_device_train_batch_size=1, gradient_accumulation_steps=16, activation_checkpointing=False)
    mixed = counted([100, 2000] * 300, per_device_train_batch_size=4)
    found = fit(one, 60 * GB, architecture, tokens=mixed)
    (packing,) = (change for change in found.changes if change.suggested)
    assert packing.sets["packing"] is True
    assert "a step then learns from more rows" in packing.reason
    assert packing not in found.taken
    # With sdpa, several packed sequences would be put into one.
    assert packing.sets["per_device_train_batch_size"] == 1
    assert effective(with_changes(one, found.changes)) == 16
    even = counted([2000] * 300)
    assert not [c for c in fit(one, 60 * GB, architecture, tokens=even).changes if c.suggested]
    # And rows that would see one another are not packed at all.
    mixing = replace(architecture, model_type="mamba")
    assert not [c for c in fit(one, 60 * GB, mixing, tokens=mixed).changes if c.suggested]


def random_spec(source: random.Random) -> RunSpec:
    preset = source.choice(["qlora", "lora", "full", "lora"])
    return spec(
        preset,
        per_device_train_batch_size=source.choice([1, 2, 3, 4, 6, 8, 16, 64]),
        gradient_accumulation_steps=source.choice([1, 2, 4, 5, 16]),
        activation_checkpointing=source.choice([True, False]),
        max_length=source.choice([256, 1024, 2048, 8192]),
        optim=source.choice(["adamw_torch_fused", "adamw_8bit", "sgd", "paged_adamw_32bit"]),
        attn_implementation=source.choice([None, "eager", "sdpa"]),
        dtype=source.choice(["auto", "float32", "bfloat16"]),
        **({} if preset == "full" else {"lora_r": source.choice([8, 64, 256])}),
    )


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_asked_the_way_is_honest(architecture: Architecture, seed: int) -> None:
    source = random.Random(seed)
    asked = random_spec(source)
    free = GB * 10 ** source.uniform(0.3, 2.3)
    seen: list[RunSpec] = []
    stored = source.choice(["bfloat16", "float32"])
    plan_of = plans(free, stored=stored, asked=seen)
    found = find_fit(asked, plan_of, Known(architecture, GPU))
    tried = len(seen)
    assert found.plans == tried < 100
    final = with_changes(asked, found.taken)
    assert effective(final) == effective(asked), "the effective batch is kept exactly"
    assert plan_of(final) == found.after
    assert found.fits == (found.after.verdict in ("fits", "tight")) == (found.missing_bytes == 0)
    steps = [plan_of(with_changes(asked, found.taken[:number])) for number in range(len(found.taken) + 1)]
    sizes = [step.memory.known_bytes for step in steps if step.memory is not None]
    assert [change.saved_bytes for change in found.taken] == [
        before - after for before, after in itertools.pairwise(sizes)
    ], "each saving is what the change adds to those before it"
    if found.goal == "fit":
        for number in range(len(found.taken)):
            others = found.taken[:number] + found.taken[number + 1 :]
            without = plan_of(with_changes(asked, others))
            if found.fits:
                needed = without.verdict != found.after.verdict
                assert needed or cost(with_changes(asked, others), stored) > cost(final, stored) * 1.03, found.taken[
                    number
                ].title
            else:
                assert without.memory is not None
                assert without.memory.known_bytes > sizes[-1], f"{found.taken[number].title} saves something"
    else:
        assert found.after.verdict == "fits"


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({"activation_checkpointing": False}, 30),
        ({"activation_checkpointing": False, "per_device_train_batch_size": 64}, 19),
        ({"attn_implementation": "eager", "max_length": 8192, "lora_r": 256}, 24),
        ({"dtype": "float32", "per_device_train_batch_size": 6}, 12),
        ({"activation_checkpointing": False, "lora_r": 256}, 11),
    ],
)
def test_no_faster_spec_of_the_ladder_would_have_fitted(
    architecture: Architecture, values: dict[str, Any], free: float
) -> None:
    asked = spec(**values)
    plan_of = plans(free * GB, asked=[])
    before = plan_of(asked)
    assert before.verdict == "does_not_fit"
    found = find_fit(asked, plan_of, Known(architecture, GPU))
    axes = smaller(asked, before, architecture, GPU)
    costs: list[float] = []
    for place in itertools.product(*(range(len(axis.rungs) + 1) for axis in axes)):
        one = asked
        for axis, level in zip(axes, place, strict=True):
            one = applied(one, axis.rungs[level - 1].sets) if level else one
        if plan_of(one).verdict == "fits":
            costs.append(cost(one))
    assert found.after.verdict == "fits"
    assert cost(with_changes(asked, found.taken)) <= min(costs) * 1.03


def cost(spec: RunSpec, stored: str = "bfloat16") -> float:
    dtype = stored if spec.dtype == "auto" else spec.dtype
    return relative_time(spec, dtype=dtype, attention=spec.attn_implementation or "sdpa")


def test_room_is_the_largest_batch_and_the_longest_sequence_that_fit() -> None:
    asked: list[RunSpec] = []
    plan_of = plans(24 * GB, asked=asked)
    base = spec("qlora")
    found = room(base, plan_of, plan_of, 131_072)
    assert len(asked) < 40

    def fits(**changes: Any) -> bool:
        return plan_of(base.model_copy(update=changes)).verdict == "fits"

    assert fits(per_device_train_batch_size=found.rows)
    assert not fits(per_device_train_batch_size=math.ceil(found.rows * 1.03) + 1)
    assert fits(per_device_train_batch_size=1, max_length=found.tokens)
    assert not fits(per_device_train_batch_size=1, max_length=math.ceil(found.tokens * 1.03) + 128)
    assert found.tokens % 128 == 0
    assert not found.whole_context
    short = room(base, plan_of, plan_of, 4096)
    assert (short.tokens, short.whole_context) == (4096, True)
    endless = room(base, plans(1e18, asked=[]), plans(1e18, asked=[]), None)
    assert (endless.rows, endless.tokens, endless.whole_context) == (MOST_ROWS, 131_072, False)
    none = room(base, plans(GB, asked=[]), plans(GB, asked=[]), 4096)
    assert (none.rows, none.tokens) == (0, 0)


def test_speeds_are_told_roughly_and_only_where_they_differ() -> None:
    assert speed_words(1 / 1.21) == "about 20 % faster"
    assert speed_words(1.21) == "takes about 20 % longer"
    assert speed_words(1.01) == ""
    assert speed_words(1 / 3) == "about 3.0 times as fast"
    assert speed_words(2.5) == "takes about 2.5 times as long"


def test_what_is_known_to_be_faster_is_reckoned_faster() -> None:
    base = spec("qlora")

    def ratio(**changes: Any) -> float:
        return cost(base.model_copy(update=changes)) / cost(base)

    assert ratio(activation_checkpointing=False) < 0.9
    assert ratio(load_in_4bit=False) < 0.85
    assert ratio(load_in_4bit=False, load_in_8bit=True) > 1.1
    assert ratio(per_device_train_batch_size=1) > 1.05, "with fewer tokens, unpacking the weights weighs more"
    assert ratio(attn_implementation="flash_attention_2") < 1 < ratio(attn_implementation="eager")
    assert ratio(optim="paged_adamw_8bit") > ratio(optim="adamw_8bit") > 1


def test_a_cpu_is_offered_what_helps_it(architecture: Architecture) -> None:
    found = fit(spec(activation_checkpointing=False), 21 * GB, architecture, gpu=None)
    assert found.fits
    assert not {"adamw_8bit", "Activations offloaded"} & set(titles(found))


def test_an_argument_that_is_passed_on_is_set_and_taken_away_again(architecture: Architecture) -> None:
    offloading = spec(activation_offloading=True)
    assert offloading.extra_arguments == {"activation_offloading": True}
    found = fit(offloading, 90 * GB, architecture)
    assert "No offloading" in titles(found)
    assert with_changes(offloading, found.taken).extra_arguments == {}


def test_gpu_without_bfloat16(architecture: Architecture) -> None:
    turing: GpuSnapshot = replace(GPU, compute_capability=(7, 5))
    found = fit(spec(dtype="float32"), 36 * GB, architecture, gpu=turing)
    assert with_changes(found.spec, found.taken).dtype == "float16"
