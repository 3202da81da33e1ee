"""What training really holds on this GPU against what its plan said, over many configurations.

python -m tests.gpu.measure_memory [--out FILE.json] [--seconds 540] [--part N/M] [--only WORD] [--list]

Each configuration is a run in a fresh process, as `sftui run` starts it: CUDA's memory returns only with its process,
and what one run leaves cached in a warm process would be counted to the next. What that costs in imports is made up
for: while a run has the GPU, plans and simulations of those to come are made on the CPU, in processes that do not see
the GPU. A measurement is in the file as soon as it is made; a second call goes on where the first was cut off.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from core.devices.gpu import GpuReading
from core.errors import SftuiError
from core.spec.build import build_spec
from core.spec.run_spec import RunSpec
from tests.gpu import running
from tests.gpu.comparison import WAYS, held, planned
from tests.gpu.configurations import CONFIGURATIONS, Configuration, part_of, tiny
from tests.gpu.on_gpu import gpus_now
from tests.gpu.planning import Planned, Planner
from tests.gpu.results import NOT_BEGUN, OtherFileError, Results, machine_of
from tests.gpu.rows import write_rows_of

ROOT = Path(__file__).parents[2]
# Less is not enough for any run.
_LEAST_SECONDS = 10.0
_BUILD_SECONDS = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not in the file yet; returns 0, 1 if time ran out before all was measured, 2 for wrong use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    wanted = tuple(tiny(one) for one in CONFIGURATIONS) if options.tiny else CONFIGURATIONS
    try:
        wanted = part_of(wanted, options.part)
    except ValueError as wrong:
        parser.error(f"--part: {wrong}")
    wanted = tuple(one for one in wanted if all(word in one.name for word in options.only))
    if not wanted:
        parser.error(f"--only: no name has {' and '.join(options.only)} in it; --list shows them")
    if options.list:
        print("\n".join(one.name for one in wanted))
        return 0
    try:
        return _go_on(wanted, options)
    except OtherFileError as wrong:
        print(wrong, file=sys.stderr)
        return 2


def _go_on(wanted: tuple[Configuration, ...], options: argparse.Namespace) -> int:
    until = time.monotonic() + options.seconds
    _make_room(options.scratch)
    # Whoever ends us early is to find no run left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = Results(options.out)
    todo = [one for one in wanted if one.name not in results.done]
    running.end_leftovers()
    reading = _reading(options.tiny)
    if not reading.gpus and not options.tiny:
        print(f"there is no GPU to measure: {reading.problem}; --tiny tries the way on the CPU", file=sys.stderr)
        return 2
    try:
        _measure(todo, results, reading, options, until)
    finally:
        if not options.keep_models:
            shutil.rmtree(options.scratch, ignore_errors=True)
    left = [one.name for one in todo if one.name not in results.done]
    print(f"{len(todo) - len(left)} measured, {len(left)} left for another call", flush=True)
    return 1 if left else 0


def _measure(
    todo: list[Configuration], results: Results, reading: GpuReading, options: argparse.Namespace, until: float
) -> None:
    models = options.scratch / "models"
    built, pytorch = _build(sorted({one.model for one in todo}), models, options.tiny)
    todo = [one for one in todo if one.model in built]
    results.describe(machine_of(reading, pytorch))
    with contextlib.closing(Planner(reading)) as planner:
        for name in built:
            _say(f"looking at {name}")
            try:
                planner.learn(models / name)
            except SftuiError as error:
                _say(f"it is planned by formulas alone: {error}")
        # All at once: they are made in this order while runs have the GPU.
        plans = [planner.plan(_spec(one, options), is_even=one.rows == "even") for one in todo]
        for configuration, its_plans in zip(todo, plans, strict=True):
            if until - time.monotonic() < _LEAST_SECONDS:
                return
            try:
                entry = _entry(configuration, its_plans, options, until)
            except (running.CutOffError, TimeoutError):
                return
            results.add(configuration, entry)
            _say(f"{configuration.name}: {_words(entry)}")


def _entry(
    configuration: Configuration, plans: "Future[Planned]", options: argparse.Namespace, until: float
) -> dict[str, Any]:
    """A configuration's plans beside what its run held; a failure is an entry too."""
    try:
        made = plans.result()
        spec = _spec(configuration, options)
        record = running.run(spec, made.by_traces, patience=options.patience, until=until)
    except (SftuiError, OSError) as error:
        title = error.title if isinstance(error, SftuiError) else type(error).__name__
        failure = {"kind": type(error).__name__, "title": title, "message": str(error)}
        return {"end": NOT_BEGUN, "failure": failure, "planned": {}}
    # By now it is simulated, or nearly.
    return {**record, "planned": made.to_json(max(0.0, until - time.monotonic()))}


def _spec(configuration: Configuration, options: argparse.Namespace) -> RunSpec:
    folder = options.scratch / "rows"
    folder.mkdir(exist_ok=True)
    rows = folder / f"{configuration.name.replace('/', '-')}.jsonl"
    if not rows.exists():
        write_rows_of(configuration, rows)
    device = "cpu" if options.tiny else "auto"
    return build_spec(configuration.values(str(options.scratch / "models" / configuration.model), str(rows), device))


def _build(names: list[str], folder: Path, is_tiny: bool) -> tuple[list[str], dict[str, Any]]:
    """Build the models that are not there, all at once; returns those that are, and what PyTorch told of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "pytorch.json"
    missing = [name for name in names if not (folder / name).is_dir()]
    _say(f"building {', '.join(missing)}" if missing else "all models are there")
    more = ["--tiny"] if is_tiny else []
    builders = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.random_models", name, str(folder / name), *more],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        for name in missing
    ]
    try:
        for name, builder in zip(missing, builders, strict=True):
            told, _ = builder.communicate(timeout=_BUILD_SECONDS)
            if builder.returncode:
                _say(f"{name} could not be built, and is left out: exit status {builder.returncode}")
            else:
                about.write_bytes(told.splitlines()[-1])
    finally:
        for builder in builders:
            builder.kill()
    found: dict[str, Any] = json.loads(about.read_bytes()) if about.exists() else {}
    return [name for name in names if (folder / name).is_dir()], found


def _make_room(scratch: Path) -> None:
    """Let everything that sftui keeps go under one folder, and let every process find this source tree."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("DATA", "CACHE", "STATE", "CONFIG"):
        os.environ[f"XDG_{name}_HOME"] = str(scratch / "home" / name.lower())
    os.environ["HF_HOME"] = str(scratch / "home" / "huggingface")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _reading(is_tiny: bool) -> GpuReading:
    if is_tiny:
        return GpuReading((), None, "not asked for")
    return gpus_now()


def _words(entry: dict[str, Any]) -> str:
    """What came of it, for whoever looks on."""
    words = f"{entry['end']} after {entry.get('seconds', 0)} s"
    if entry["failure"]:
        words += f": {entry['failure']['title']}"
    run = held(entry)
    if run is None:
        return words
    words += f", held {run.total / 1e9:.2f} GB"
    for way in WAYS:
        plan = planned(entry["planned"].get(way, {}))
        # On a CPU a plan and a run tell of different things.
        if plan is not None and run.reserved is not None:
            words += f", {way} {plan.total / run.total - 1:+.1%}"
    return words


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("gpu-measurements.json"), help="the file, made or gone on with"
    )
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin and end within so many")
    parser.add_argument("--part", default="1/1", metavar="N/M", help="the Nth of M parts of the list")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="configurations with it (repeatable)"
    )
    parser.add_argument("--list", action="store_true", help="print the names, and measure nothing")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/sftui-measure"), help="35 GB of disk; deleted")
    parser.add_argument("--keep-models", action="store_true", help="do not delete it: the next call needs the models")
    parser.add_argument("--patience", type=float, default=150.0, help="seconds after which a run is ended")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: tries the way, measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
