"""Estimates and simulations against real runs on this CPU: what autograd keeps, and the peak. See activations.md.

python -m tests.bench.activations [--all | NUMBER_OF_CASES | FOLDER_OF_A_MODEL]
"""

import itertools
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from core.spec.run_spec import RunSpec
from core.training.libraries import import_libraries
from tests.training.estimated import estimated
from tests.training.live_bytes import Batch, request_for, run_for_real, shape_of
from tests.wide_families import WIDE, build_wide

HOW: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True},
    "lora": {},
    "full": {"use_peft": False},
    "lora32": {"dtype": "float32"},
    "int8": {"load_in_8bit": True},
    "dora": {"load_in_4bit": True, "use_dora": True},
}
OPTIONS = tuple(itertools.product(HOW, (True, False), ("sdpa", "eager"), ("plain", "padded", "packed")))
TOKENS = 256
_CASES = 102
_LIMITS = {"formulas": 0.05, "traces": 0.05, "simulation": 0.02}


@dataclass(frozen=True)
class Case:
    """One run."""

    folder: Path
    how: str
    checkpointing: bool
    attention: str
    batch: Batch

    @property
    def name(self) -> str:
        what = "ckpt" if self.checkpointing else "all"
        return f"{self.folder.name:12} {self.how:6} {what:4} {self.attention:5} {self.batch:6}"

    @property
    def spec(self) -> RunSpec:
        values = {
            "model_name_or_path": str(self.folder), "datasets": [{"path": "rows"}], "use_peft": True,
            "dtype": "bfloat16", "lora_r": 16, "attn_implementation": self.attention, "max_steps": 2,
            "activation_checkpointing": self.checkpointing, "gradient_accumulation_steps": 1,
            "per_device_train_batch_size": 1 if self.batch == "packed" else 2, "packing": self.batch == "packed",
            # PEFT drops out nothing beside experts.
            "lora_dropout": 0.0 if self.folder.name in ("mixtral", "qwen3_moe") else 0.05,
            "optim": "adamw_torch_fused",
        }  # fmt: skip
        return RunSpec.model_validate(values | HOW[self.how])


def cases(models: Iterable[Path], number: int | None) -> Iterator[Case]:
    """All, or so many drawn by chance, as many of each model."""
    drawn, folders = random.Random(1), list(models)
    for index, folder in enumerate(folders):
        count = len(OPTIONS) if number is None else number // len(folders) + (index < number % len(folders))
        for how, checkpointing, attention, batch in drawn.sample(OPTIONS, min(count, len(OPTIONS))):
            yield Case(folder, how, checkpointing, attention, batch)


def measure(case: Case, scratch: Path) -> dict[str, tuple[float, float]]:
    """Print what was kept and held, and return by how much each way of telling is off: of both, as shares."""
    from core.memory.simulate import simulate

    spec, shape = case.spec, shape_of(case.batch, TOKENS)
    real = run_for_real(spec, case.batch, scratch / "run", TOKENS)
    simulation = simulate(spec, request_for(spec), shape, on_gpu=False)
    by_formulas, by_traces = (estimated(spec, shape, on_gpu=False, traced=traced) for traced in (False, True))
    told = {
        "formulas": (by_formulas.kept, by_formulas.peak),
        "traces": (by_traces.kept, by_traces.peak),
        "simulation": (simulation.kept, simulation.peak),
    }
    off = {how: (kept / real.kept - 1, peak / real.peak - 1) for how, (kept, peak) in told.items()}
    words = "".join(f"  {kept:+7.1%} {peak:+7.1%}" for kept, peak in off.values())
    print(f"{case.name} {real.kept:11,} {real.peak:13,}{words}", flush=True)
    return off


def summary(found: dict[str, list[tuple[float, float]]]) -> None:
    """Print the mean and the worst error of each way of telling."""
    for how, limit in _LIMITS.items():
        for what, errors in zip(("kept", "peak"), zip(*found[how], strict=True), strict=True):
            mean, worst = fmean(map(abs, errors)), max(errors, key=abs)
            outside = sum(abs(error) > limit for error in errors)
            print(
                f"{how:10} {what}: mean {mean:.1%}, worst {worst:+.1%}, {outside} of {len(errors)} beyond {limit:.0%}"
            )


def main(arguments: list[str], scratch: Path) -> None:
    """Go through the cases."""
    number: int | None = _CASES
    folders: Iterable[Path] = (build_wide(name, scratch / name) for name in WIDE)
    match arguments:
        case ["--all"]:
            number = None
        case [count] if count.isdigit():
            number = int(count)
        case [folder]:
            folders, number = [Path(folder)], 12
    heads = "".join(f"  {how:>15}" for how in _LIMITS)
    print(f"{'':39} {'kept':>11} {'peak':>13}{heads}")
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for index, one in enumerate(cases(folders, number)):
        try:
            off = measure(one, scratch / str(index))
        except Exception as error:  # noqa: BLE001 - a bench goes on
            print(one.name, type(error).__name__, str(error)[:100].replace("\n", " "), flush=True)
            continue
        for how, errors in off.items():
            found[how].append(errors)
    summary(found)


if __name__ == "__main__":
    import_libraries()
    with tempfile.TemporaryDirectory() as parent:
        main(sys.argv[1:], Path(parent))
