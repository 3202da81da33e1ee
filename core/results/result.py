"""What a run has left to be used: its result, or a whole checkpoint of it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import SftuiError
from core.models.adapter_files import find_start
from core.runs.checkpoints import committed_checkpoints, is_committed, place_of, step_of
from core.runs.folder import RunFolder
from core.spec.run_spec import RunSpec
from core.text import safe

Kind = Literal["adapter", "model"]


@dataclass(frozen=True, slots=True)
class Result:
    """Weights that a run has left."""

    run: RunFolder
    path: Path
    """The folder that holds them."""
    kind: Kind
    step: int | None
    """That of a checkpoint; None for the result at the run's end."""

    @property
    def name(self) -> str:
        """What it is called among the run's others."""
        return "result" if self.step is None else self.path.name


def find_result(run: RunFolder, step: int | None = None) -> Result:
    """The result of a run, or its checkpoint of a step. Raises SftuiError where there is none, naming what there is."""
    if step is not None:
        path = place_of(run, step)
        if not is_committed(path):
            there = ", ".join(str(step_of(one)) for one in committed_checkpoints(run)) or "none"
            raise SftuiError("No such checkpoint", f"{safe(run.id)} has none of step {step}; it has {there}.")
        return Result(run, path, _kind(path), step)
    for path in (run.adapter, run.model):
        if (path / "adapter_config.json").is_file() or (path / "config.json").is_file():
            return Result(run, path, _kind(path), None)
    raise _no_result(run)


def last_result(run: RunFolder, step: int | None = None) -> Result:
    """As `find_result`, but the last checkpoint stands in for a result that was never made. Raises SftuiError."""
    left = choices(run) if step is None else ()
    return left[0] if left else find_result(run, step)


def choices(run: RunFolder) -> tuple[Result, ...]:
    """All that a run has left: the result first, then its checkpoints, the newest first."""
    found = []
    with contextlib.suppress(SftuiError):
        found.append(find_result(run))
    kept = [Result(run, path, _kind(path), step_of(path)) for path in reversed(committed_checkpoints(run))]
    return (*found, *kept)


def check_result(result: Result, spec: RunSpec) -> None:
    """Raise SftuiError for weights that cannot be taken as they are: pickles, other adapters, half a PiSSA."""
    if result.kind == "model":
        return
    if result.step is not None and spec.sftui.init_lora_weights in ("pissa", "olora"):
        raise SftuiError(
            "This checkpoint fits no base model",
            f"{spec.sftui.init_lora_weights} moves a part of the base's weights into the adapter; what fits the base "
            "is made at the end of the run.",
            "Resume the run and let it end, or make it shorter (`sftui set RUN max_steps=N`).",
        )
    try:
        find_start(str(result.path))
    except SftuiError as error:
        raise SftuiError("The adapter cannot be used", error.message, error.hint) from error


def _kind(path: Path) -> Kind:
    return "adapter" if (path / "adapter_config.json").is_file() else "model"


def _no_result(run: RunFolder) -> SftuiError:
    kept = committed_checkpoints(run)
    state = "is not done yet" if run.is_alive() else "was not trained to its end"
    message = f"{safe(run.id)} {state}, so that it has no result."
    if not kept:
        hint = "No checkpoint was saved either." if not run.is_alive() else "Wait for its end, or for a checkpoint."
        return SftuiError("There is no result", message, hint)
    step = step_of(kept[-1])
    return SftuiError("There is no result", message, f"Its checkpoint of step {step} can be used: --checkpoint {step}")
