"""Makes of measurements what is kept with the code: their figures as JSON, and a page to read. All are computed here.

python -m tests.gpu.summary FILE.json [FILE.json …] [--into FOLDER]
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core import paths
from tests.gpu.comparison import (
    BAND,
    CARDS,
    GIB,
    MEAN,
    MOMENTS,
    UNDER,
    WAYS,
    WORST,
    Told,
    accuracy,
    corrected,
    error,
    held,
    planned,
)
from tests.gpu.configurations import Configuration
from tests.gpu.results import NOT_BEGUN, read_results

_FOLDER = Path(__file__).parent / "measurements"
# Words of the machine: paths, and what libraries printed.
_NOT_KEPT = ("log",)
_WIDTH = 120
_FAILURE = ("kind", "title", "step")


def merged(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several files of one machine as one; of a run in several, the last one begun counts. Raises ValueError."""
    first, *_ = files
    for one in files:
        differing = [name for name in ("gpu", "driver", "versions") if one["machine"][name] != first["machine"][name]]
        if differing:
            raise ValueError(f"these were not measured in the same place: {', '.join(differing)} differ")
    runs: dict[str, Any] = {}
    for name, run in ((name, run) for one in files for name, run in one["runs"].items()):
        if name not in runs or run["end"] != NOT_BEGUN:
            runs[name] = _kept(run)
    machine = {**first["machine"], "date": min(one["machine"]["date"] for one in files)}
    return {**first, "machine": machine, "runs": runs}


def page(results: dict[str, Any]) -> str:
    """The measurements in Markdown."""
    runs = results["runs"]
    return "\n".join(
        [
            *_head(results),
            "",
            *_totals(runs, results["machine"]["free_bytes"]),
            "",
            *_table(runs),
            "",
            *_parts(runs),
            *_failures(runs),
            "",
        ]
    )


def file_name(results: dict[str, Any]) -> str:
    """What the files are called: date and GPU, "2030-01-31-nvidia-h100"."""
    machine = results["machine"]
    return f"{machine['date']}-{re.sub(r'[^a-z0-9]+', '-', machine['gpu'].lower()).strip('-')}"


def pairs_of(runs: dict[str, Any], way: str, *, paged: bool = True) -> dict[str, tuple[Told, Told]]:
    """By name, what one way of telling planned and what was held, of the runs that came to their end."""
    found = {}
    for name, run in runs.items():
        plan, was = planned(run["planned"].get(way, {})), held(run)
        if (
            plan is not None
            and was is not None
            and (paged or not Configuration.from_json(run["configuration"]).is_paged)
        ):
            found[name] = plan, was
    return found


def ran_out(runs: dict[str, Any], way: str, free_bytes: int | None) -> list[tuple[int, int]]:
    """Planned and free bytes of the runs that ran out of memory."""
    plans = (planned(run["planned"].get(way, {})) for run in runs.values() if run["end"] == "ran out of memory")
    return [(plan.total, free_bytes) for plan in plans if plan is not None and free_bytes is not None]


def _kept(run: dict[str, Any]) -> dict[str, Any]:
    failure = run.get("failure")
    kept = {name: value for name, value in run.items() if name not in _NOT_KEPT}
    return {**kept, "failure": {name: failure.get(name) for name in _FAILURE} if failure else None}


def _head(results: dict[str, Any]) -> Iterator[str]:
    machine, runs = results["machine"], results["runs"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    size = f" ({machine['gpu_bytes'] / GIB:.1f} GiB)" if machine["gpu_bytes"] else ""
    yield f"# What training held on {machine['gpu']}, against what was planned"
    yield ""
    yield from _wrapped(
        f"{machine['date']}; {machine['gpu']}{size}, driver {machine['driver']}; {machine['cores']} cores; {versions}."
    )
    yield ""
    yield from _wrapped(
        f"`python -m tests.gpu.measure_memory`: {len(runs)} runs of models with random weights in the sizes of "
        "published ones, each in a fresh process as `sftui run` starts it. *Held*: PyTorch's reserved memory at most, "
        "and what the driver counts for the process *outside* of it. *Driver*: by how much it saw more memory in use "
        "than before, looking once a second. Errors are shares of what was held, positive where too much was planned. "
        "Where the largest batch is met by a probe only the total is told."
    )


def _totals(runs: dict[str, Any], free_bytes: int | None) -> Iterator[str]:
    yield "## The aim"
    yield ""
    yield from _wrapped(
        f"A mean error of at most {MEAN:.0%}, the worst at most {WORST:.0%}, never more than {UNDER:.0%} too little, "
        f"and on cards of {', '.join(f'{card // GIB}' for card in CARDS)} GiB no wrong verdict, but where a run holds "
        f"within {BAND:.0%} of the card. *Corrected*: each plan with the median of what all others left out, as a plan "
        "has it once this GPU is known."
    )
    yield ""
    yield "| by | runs | mean | worst | most too little | wrong verdicts | reached |"
    yield "|---|---|---|---|---|---|---|"
    for way in WAYS:
        pairs = list(pairs_of(runs, way).values())
        for name, one, out in (
            (way, pairs, ran_out(runs, way, free_bytes)),
            (f"{way}, corrected", corrected(pairs), []),
        ):
            found = accuracy(one, out)
            if found is None:
                yield f"| {name} | 0 | | | | | |"
                continue
            yield (
                f"| {name} | {found.runs} | {found.mean:.1%} | {found.worst:+.1%} | {found.lowest:+.1%} "
                f"| {found.wrong_verdicts} of {found.verdicts} | {'yes' if found.reaches_aim else 'no'} |"
            )


def _table(runs: dict[str, Any]) -> Iterator[str]:
    yield "## Every run"
    yield ""
    yield f"| run | held GB | tensors GB | reserved GB | outside MB | driver GB | {' | '.join(WAYS)} | seconds a step |"
    yield f"|---|---|---|---|---|---|{'---|' * len(WAYS)}---|"
    for name, run in runs.items():
        was = held(run)
        if was is None:
            continue
        plans = (planned(run["planned"].get(way, {})) for way in WAYS)
        errors = " | ".join(_percent(error(plan, was, "total")) if plan else "" for plan in plans)
        step = run["step_seconds"][-1] if run["step_seconds"] else None
        yield (
            f"| {name} | {_gb(was.total)} | {_gb(was.allocated)} | {_gb(was.reserved)} "
            f"| {'' if was.context is None else f'{was.context / 1e6:.0f}'} | {_gb(run['driver_growth_bytes'])} "
            f"| {errors} | {'' if step is None else f'{step:.2f}'} |"
        )


def _parts(runs: dict[str, Any]) -> Iterator[str]:
    """The errors of what PyTorch allocates, of what it reserves, and of what lies outside."""
    yield "## Where the errors are"
    yield ""
    yield from _wrapped(
        "Mean of the errors, and the worst: of tensors and of PyTorch's reserve as shares, of what is outside in MB. "
        "Without paged optimizers, whose state lies partly outside of PyTorch."
    )
    yield ""
    yield "| by | runs | tensors | reserved | outside MB |"
    yield "|---|---|---|---|---|"
    for way in WAYS:
        pairs = pairs_of(runs, way, paged=False).values()
        cells, counted = [], 0
        for moment in MOMENTS[1:]:
            errors = [found for plan, was in pairs if (found := error(plan, was, moment)) is not None]
            counted = max(counted, len(errors))
            form = "{:+.0f}" if moment == "context" else "{:+.1%}"
            scale = 1e6 if moment == "context" else 1.0
            mean, worst = (sum(errors) / len(errors), max(errors, key=abs)) if errors else (0.0, 0.0)
            cells.append(f"{form.format(mean / scale)} / {form.format(worst / scale)}" if errors else "")
        yield f"| {way} | {counted} | {' | '.join(cells)} |"


def _failures(runs: dict[str, Any]) -> Iterator[str]:
    rest = {name: run for name, run in runs.items() if held(run) is None}
    if not rest:
        return
    yield ""
    yield "## Runs without an end of their own"
    yield ""
    yield "| run | what became of it | planned GB |"
    yield "|---|---|---|"
    for name, run in rest.items():
        plans = [planned(run["planned"].get(way, {})) for way in WAYS]
        words = run["end"] + (f": {run['failure']['title']}" if run["failure"] else "")
        yield f"| {name} | {words} | {' / '.join(_gb(plan.total) if plan else '-' for plan in plans)} |"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _gb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:+.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files, and print where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="the folder of the two files; by default tests/gpu/measurements")
    options = parser.parse_args(arguments)
    try:
        results = merged([read_results(file) for file in options.files])
    except (OSError, ValueError) as wrong:
        print(wrong, file=sys.stderr)
        return 1
    if not results["machine"]["gpu_bytes"] and options.into is None:
        print("on a CPU the way is tried and nothing is measured: name a folder with --into", file=sys.stderr)
        return 1
    folder = options.into or _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in (("json", json.dumps(results, indent=1) + "\n"), ("md", page(results))):
        target = folder / f"{file_name(results)}.{ending}"
        paths.write_atomically(target, text)
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
