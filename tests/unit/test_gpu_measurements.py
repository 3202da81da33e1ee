"""The parts of tests/gpu that need no GPU: what is measured, how it is compared, and the page that is made of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.spec.build import build_spec
from tests.gpu.comparison import (
    GIB,
    Told,
    accuracy,
    corrected,
    error,
    foresaw_running_out,
    held,
    planned,
    verdict_is_right,
)
from tests.gpu.configurations import CONFIGURATIONS, LLAMA, Configuration, part_of, tiny
from tests.gpu.random_models import MODELS
from tests.gpu.results import Results, read_results
from tests.gpu.rows import lengths_of, write_rows_of
from tests.gpu.running import record_of
from tests.gpu.summary import file_name, main, merged, page

GB = 10**9
MACHINE = {
    "date": "2030-01-31", "gpu": "NVIDIA H100 80GB HBM3", "gpu_bytes": 80 * GIB, "free_bytes": 79 * GIB,
    "compute_capability": [9, 0], "driver": "580.1", "cores": 16, "memory_bytes": 128 * GIB,
    "versions": {"torch": "2.11.0+cu130"},
}  # fmt: skip


def plan_of(total: int) -> dict[str, Any]:
    """A recorded plan, with a context of 0.5 GB and holes of 0.1 GB."""
    parts = {"base_weights": total - 6 * GB // 10, "allocator_and_context": 6 * GB // 10}
    return {"total_bytes": total, "is_complete": True, "context_bytes": GB // 2, "parts": parts}


def run_of(total: int, *plans: int, end: str = "finished") -> dict[str, Any]:
    """A recorded run that held so much, 0.4 GB of it outside of PyTorch, with a plan for each way of telling."""
    peak = {"bytes": total, "reserved_bytes": total - 4 * GB // 10, "allocated_bytes": total - 5 * GB // 10}
    failure = {"kind": "OutOfMemoryError", "title": "ran out", "message": "in /home/me", "step": 0, "memory": None}
    return {
        "end": end,
        "failure": None if end == "finished" else failure,
        "peak": peak,
        "probed_bytes": None,
        "driver_growth_bytes": total,
        "step_seconds": [0.5],
        "planned": dict(zip(("formulas", "traces", "simulation"), map(plan_of, plans), strict=False)),
    }


def test_at_least_twenty_four_runs_of_all_models_and_methods_are_measured_and_none_twice() -> None:
    assert len(CONFIGURATIONS) >= 24
    assert max(Counter(one.name for one in CONFIGURATIONS).values()) == 1
    assert {one.model for one in CONFIGURATIONS} < set(MODELS)
    assert {one.method for one in CONFIGURATIONS} == {"nf4", "int8", "lora", "full"}
    assert {one.rows for one in CONFIGURATIONS} == {"even", "odd", "mixed", "packed"}
    assert {one.optimizer for one in CONFIGURATIONS} == {"adamw_torch_fused", "paged_adamw_8bit"}
    assert {one.checkpointing for one in CONFIGURATIONS} == {True, False}
    assert len({one.rank for one in CONFIGURATIONS}) >= 3
    # What comes first says most, should the time run out: each model and each method.
    assert {one.model for one in CONFIGURATIONS[:6]} | {one.method for one in CONFIGURATIONS[:6]} == {
        one for pair in ((one.model, one.method) for one in CONFIGURATIONS) for one in pair
    }
    halves = part_of(CONFIGURATIONS, "1/2"), part_of(CONFIGURATIONS, "2/2")
    assert halves[0] + halves[1] == CONFIGURATIONS
    with pytest.raises(ValueError, match="no part"):
        part_of(CONFIGURATIONS, "3/2")


@pytest.mark.parametrize("one", CONFIGURATIONS, ids=lambda one: one.name)
def test_each_is_a_spec_whose_rows_have_the_length_that_the_plan_takes_them_to_have(
    one: Configuration, tmp_path: Path
) -> None:
    rows = write_rows_of(one, tmp_path / "rows.jsonl")
    spec = build_spec(one.values("model", str(rows), "auto"))
    assert (spec.method == "full") == (one.method == "full")
    assert max(lengths_of(one)) == (one.tokens // 4 if one.rows == "packed" else spec.max_length)
    # A letter a token, and one for the end.
    assert [len(json.loads(line)["text"]) + 1 for line in rows.read_text().splitlines()] == lengths_of(one)
    assert len(lengths_of(one)) >= one.steps * one.batch * one.accumulation
    assert Configuration.from_json(one.to_json()) == one
    assert tiny(one).tokens >= 16


def test_errors_are_shares_of_what_was_held_part_by_part() -> None:
    plan, run = planned(plan_of(8 * GB)), held(run_of(10 * GB))
    assert plan == Told(8 * GB, 74 * GB // 10, 75 * GB // 10, GB // 2)
    assert run == Told(10 * GB, 95 * GB // 10, 96 * GB // 10, 4 * GB // 10)
    assert error(plan, run, "total") == pytest.approx(-0.2)
    assert error(plan, run, "allocated") == pytest.approx(7.4 / 9.5 - 1)
    assert error(plan, run, "reserved") == pytest.approx(7.5 / 9.6 - 1)
    assert error(plan, run, "context") == 0.1 * GB
    assert error(Told(8), run, "reserved") is None
    assert planned({"problem": "8-bit layers are not simulated"}) is None
    assert planned({**plan_of(8 * GB), "is_complete": False}) is None
    assert held(run_of(10 * GB, end="ran out of memory")) is None
    # The largest batch was met by the probe.
    assert held({**run_of(10 * GB), "probed_bytes": 11 * GB}) == Told(11 * GB)


def test_a_verdict_is_right_or_wrong_only_away_from_the_memory_of_the_card() -> None:
    assert verdict_is_right(7 * GIB, 6 * GIB, 8 * GIB) is True
    assert verdict_is_right(9 * GIB, 6 * GIB, 8 * GIB) is False
    assert verdict_is_right(7 * GIB, 9 * GIB, 8 * GIB) is False
    assert verdict_is_right(9 * GIB, 81 * GIB // 10, 8 * GIB) is None
    assert foresaw_running_out(90, 80) is True
    assert foresaw_running_out(78, 80) is None
    assert foresaw_running_out(60, 80) is False


def test_the_aim_is_missed_by_a_mean_a_worst_or_a_low_error_or_by_one_wrong_verdict() -> None:
    def of(*totals: tuple[int, int], ran_out: tuple[tuple[int, int], ...] = ()) -> Any:
        return accuracy([(Told(plan), Told(run)) for plan, run in totals], ran_out)

    good = of((102 * GB, 100 * GB), (9900, 10000))
    assert (good.runs, good.wrong_verdicts) == (2, 0)
    assert good.mean == pytest.approx(0.015) and good.worst == pytest.approx(0.02)
    assert good.lowest == pytest.approx(-0.01)
    assert good.reaches_aim
    assert not of((104, 100)).reaches_aim, "the mean"
    assert not of(*[(100, 100)] * 9, (108, 100)).reaches_aim, "the worst"
    assert not of(*[(100, 100)] * 9, (96, 100)).reaches_aim, "too little"
    assert not of((100, 100), ran_out=((50, 80),)).reaches_aim, "it ran out, and was to fit"
    assert of((100, 100), ran_out=((100, 80),)).verdicts == good.verdicts // 2 + 1
    assert of() is None


def test_a_plan_is_corrected_by_all_runs_but_its_own() -> None:
    pairs = [(Told(100), Told(110)), (Told(200), Told(212)), (Told(300), Told(400))]
    assert [plan.total for plan, _ in corrected(pairs)] == [156, 255, 311]
    assert corrected(pairs[:1]) == []


def test_a_page_is_made_of_the_figures_and_tells_of_no_machine(tmp_path: Path) -> None:
    names = [one for one in CONFIGURATIONS if one.model == LLAMA][:3]
    results = Results(tmp_path / "first.json")
    results.describe(MACHINE)
    results.add(names[0], run_of(10 * GB, 9 * GB, 102 * GB // 10, 101 * GB // 10))
    results.add(names[1], run_of(20 * GB, 21 * GB, 20 * GB))
    other = Results(tmp_path / "second.json")
    other.describe({**MACHINE, "date": "2030-02-01"})
    other.add(names[2], {**run_of(79 * GB, 99 * GB, 90 * GB, end="ran out of memory"), "log": "secret"})
    other.add(names[1], {"end": "not begun", "failure": {"title": "no disk"}, "planned": {}})
    assert other.done == {names[2].name}, "what was not begun is to be tried again"

    assert main([str(tmp_path / "first.json"), str(tmp_path / "second.json"), "--into", str(tmp_path / "kept")]) == 0
    kept = read_results(tmp_path / "kept" / "2030-01-31-nvidia-h100-80gb-hbm3.json")
    text = (tmp_path / "kept" / "2030-01-31-nvidia-h100-80gb-hbm3.md").read_text()
    assert kept["runs"].keys() == {one.name for one in names}
    assert "secret" not in json.dumps(kept) and "/home/me" not in json.dumps(kept)
    assert f"| {names[0].name} | 10.00 | 9.50 | 9.60 | 400 | 10.00 | -10.0% | +2.0% | +1.0% | 0.50 |" in text
    assert "| formulas | 2 | 7.5% | -10.0% | -10.0% | 0 of " in text
    assert "| traces | 2 | 1.0% | +2.0% | +0.0% | 0 of " in text
    assert f"| {names[2].name} | ran out of memory: ran out | 99.00 / 90.00 / - |" in text
    assert "| traces | 2 | +0.3% / +1.1% | +0.3% / +1.0% | +100 / +100 |" in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))
    assert page(kept) == text and file_name(kept) == "2030-01-31-nvidia-h100-80gb-hbm3"


def test_measurements_of_two_machines_are_not_put_together(tmp_path: Path) -> None:
    here = {"format": 1, "machine": MACHINE, "runs": {}}
    with pytest.raises(ValueError, match="driver differ"):
        merged([here, {**here, "machine": {**MACHINE, "driver": "570.1"}}])
    results = Results(tmp_path / "file.json")
    results.describe(MACHINE)
    with pytest.raises(ValueError, match="name another file"):
        Results(tmp_path / "file.json").describe({**MACHINE, "gpu": "NVIDIA L4"})
    (tmp_path / "file.json").write_text("[]")
    with pytest.raises(ValueError, match="no measurements"):
        Results(tmp_path / "file.json")


def test_a_run_tells_what_it_held_and_how_it_ended() -> None:
    use = [events.GpuUse(0, "H100", 80 * GIB, used, None, None, None, None) for used in (GIB, 9 * GIB, 8 * GIB)]
    told: list[events.Event] = [
        *(events.MemorySampled(1, 1, 1, 0.0, (one,)) for one in use),
        events.MemoryProbed("gpu", 9 * GIB, 80 * GIB, 2, 200, 1.0),
        events.StepCompleted(1, 0.1, 6.0, 1e-5, 1.0, 199, 100.0, 1.5),
        events.StepCompleted(2, 0.2, 5.5, 1e-5, 1.0, 399, 100.0, 0.5),
        events.PeakMeasured(1, "gpu", 7 * GIB, 5 * GIB, 6 * GIB),
        events.PeakMeasured(2, "gpu", 8 * GIB, 6 * GIB, 7 * GIB),
        events.RunFinished(2, "adapter", 3.0),
    ]
    record = record_of(told)
    assert (record["end"], record["failure"], record["probed_bytes"]) == ("finished", None, 9 * GIB)
    assert record["peak"]["reserved_bytes"] == 7 * GIB
    assert record["driver_growth_bytes"] == 8 * GIB
    assert (record["step_tokens"], record["step_seconds"]) == ([199, 200], [1.5, 0.5])
    assert record_of(told[:-1])["end"] == "interrupted"
    assert record_of(told[:-1], timed_out=True)["end"] == "timed out"
    memory = events.OutOfMemory("gpu", "training")
    failed = record_of([events.RunFailed("E", "The GPU's memory ran out", "text", "", None, 1, 1.0, memory)])
    assert (failed["end"], failed["failure"]["memory"]["phase"]) == ("ran out of memory", "training")
    assert record_of([events.RunFailed("E", "Broken", "text", "", None, 1, 1.0)])["end"] == "failed"
