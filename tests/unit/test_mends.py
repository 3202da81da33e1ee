"""What a run that ran out of memory is offered: enough, gentle first, and never something else than a mend."""

from dataclasses import replace
from typing import Any

import pytest

from core import starter
from core.errors import SftuiError
from core.memory.mends import mended, mends_for
from core.memory.plan import ModelFacts, Plan
from core.models.architecture import detect
from core.runs.events import Mend
from core.spec.run_spec import RunSpec
from tests.unit.test_fit import GB, GPU, plans, spec

MODEL = ModelFacts(starter.MODEL, detect(starter.MODEL), ())


def offered(wanted: RunSpec, **known: Any) -> tuple[Mend, ...]:
    plan_of = known.pop("plan_of", plans(20 * GB, asked=[]))
    return mends_for(
        wanted, MODEL, GPU, plan_of, **{"longest_tokens": None, "missing_bytes": None, "has_checkpoint": True, **known}
    )


def run(**values: Any) -> RunSpec:
    defaults = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_length": 2048,
                "activation_checkpointing": False, "attn_implementation": "sdpa", "optim": "adamw_torch"}  # fmt: skip
    return spec("lora", **{**defaults, **values})


def test_the_gentle_ones_come_first_and_the_length_of_the_rows_last() -> None:
    mends = offered(run())
    assert mends[0].sets == ("per_device_train_batch_size=4", "gradient_accumulation_steps=4")
    assert mends[0].saved_bytes == 8 * 2048 * (4096 * (2 * 32 * 20 + 40) + 4) // 2
    assert [mend.title for mend in mends[1:3]] == ["Checkpointing on", "Activations offloaded"]
    assert mends[-1].sets == ("max_length=1024",)
    assert [mend.begins_anew for mend in mends] == [False] * 3 + [True] * (len(mends) - 3)
    titles = [mend.title for mend in mends]
    assert titles.index("adamw_8bit") < titles.index("Base model in 8 bit") < len(titles) - 1


def test_each_mend_makes_a_spec_that_learns_from_as_many_rows_a_step_and_takes_less() -> None:
    before = run()
    asked: list[RunSpec] = []
    plan_of = plans(20 * GB, asked=asked)
    now = plan_of(before).memory
    assert now is not None
    for mend in offered(before):
        after = mended(before, mend)
        assert after.per_device_train_batch_size * after.gradient_accumulation_steps == 16
        memory = plan_of(after).memory
        assert memory is not None and mend.saved_bytes == now.known_bytes - memory.known_bytes > 0


def test_where_half_a_batch_is_not_enough_a_smaller_one_is_offered_or_what_saves_more_comes_first() -> None:
    half = offered(run())[0].saved_bytes
    assert half is not None
    smaller = offered(run(), missing_bytes=half + GB)[0]
    assert smaller.sets == ("per_device_train_batch_size=2", "gradient_accumulation_steps=8")
    one_row = run(per_device_train_batch_size=2, gradient_accumulation_steps=1)
    save = {mend.title: mend.saved_bytes or 0 for mend in offered(one_row)}
    mends = offered(one_row, missing_bytes=save["Checkpointing on"] - GB)
    assert mends[0].title == "Checkpointing on"
    assert "Batch 1, accumulation 2" in [mend.title for mend in mends[1:3]]


def test_where_the_weights_did_not_fit_only_smaller_weights_are_offered() -> None:
    assert {mend.title for mend in offered(run(), was_loading=True)} == {"Base model in 8 bit"}


def test_where_a_last_batch_is_left_out_a_smaller_batch_cannot_go_on_from_a_checkpoint() -> None:
    mends = {mend.title: mend.begins_anew for mend in offered(run(dataloader_drop_last=True))}
    assert mends["Batch 4, accumulation 4"] and not mends["Checkpointing on"]


def test_without_a_checkpoint_nothing_is_lost_by_beginning_anew() -> None:
    assert not any(mend.begins_anew for mend in offered(run(), has_checkpoint=False))


def test_max_length_beyond_the_longest_row_saves_nothing_and_is_not_offered_as_if_it_did() -> None:
    mends = offered(run(max_length=32_768), longest_tokens=2048)
    assert mends[-1].sets == ("max_length=1024",)
    assert mends[0].saved_bytes == offered(run())[0].saved_bytes


def test_where_the_plan_does_not_tell_what_a_batch_takes_that_is_not_made_up() -> None:
    whole = plans(20 * GB, asked=[])

    def partly(wanted: RunSpec) -> Plan:
        plan = whole(wanted)
        assert plan.memory is not None
        parts = tuple(replace(part, bytes=None) if part.name == "activations" else part for part in plan.memory.parts)
        return replace(plan, memory=replace(plan.memory, parts=parts))

    mends = offered(run(), plan_of=partly)
    assert (mends[0].title, mends[0].saved_bytes) == ("Batch 4, accumulation 4", None)
    (eight_bit,) = (mend for mend in mends if mend.title == "adamw_8bit")
    assert eight_bit.saved_bytes is not None and eight_bit.saved_bytes > 0


@pytest.mark.parametrize(
    "bad", ["model_name_or_path=/evil", "sftui.on_finish=rm -rf /", "output_dir=/", "learning_rate=9"]
)
def test_a_journal_from_elsewhere_cannot_set_anything_else(bad: str) -> None:
    with pytest.raises(SftuiError, match="no mend"):
        mended(run(), Mend("Batch 1", ("per_device_train_batch_size=1", bad), None))


def test_a_mend_that_makes_no_spec_is_refused() -> None:
    with pytest.raises(SftuiError):
        mended(run(), Mend("Batch", ("per_device_train_batch_size=many",), None))
