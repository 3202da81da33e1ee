"""What makes a run that ran out of memory smaller, the best first; each step still learns from as many rows."""

import json
from collections.abc import Mapping
from typing import Any

from core.devices.gpu import GpuSnapshot
from core.errors import SftuiError
from core.memory.fit_ladder import Axis, Rung, applied, smaller
from core.memory.plan import ModelFacts, Plan
from core.memory.room import PlanOf
from core.runs.events import Mend
from core.spec.build import build_spec, parse_value
from core.spec.contradictions import contradictions
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING

# In this order: what costs least time and changes nothing of what is learned first.
_GOES_ON = ("batch", "attention", "checkpointing", "offloading")
"""With these, checkpoints can be gone on from: place in the data, weights and optimizer stay what they are."""
_BEGINS_ANEW = ("optimizer", "weights", "dtype")
_OF_WEIGHTS = ("weights", "dtype")
# A last batch that is left out is another one when batches are smaller: an epoch may get one step more.
_DROPS_LAST = "dataloader_drop_last"
SETS = frozenset(
    {
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "activation_checkpointing",
        OFFLOADING,
        "attn_implementation",
        "optim",
        "dtype",
        "load_in_4bit",
        "load_in_8bit",
        "use_bnb_nested_quant",
        "bnb_4bit_quant_type",
        "max_length",
    }
)
"""All that a mend may set: a journal from elsewhere must not set anything else."""
_SHORTEST = 128
# A plan is not more exact than this.
_MARGIN = 1.05


def mends_for(
    spec: RunSpec,
    model: ModelFacts,
    gpu: GpuSnapshot | None,
    plan_of: PlanOf,
    *,
    longest_tokens: int | None,
    missing_bytes: int | None,
    has_checkpoint: bool,
    was_loading: bool = False,
) -> tuple[Mend, ...]:
    """Return the changes that save memory.

    `longest_tokens` is the length of the longest row: what `max_length` is beyond it costs nothing. `missing_bytes` is
    by how much the memory was too small, None where nobody knows. Each axis gives its first rung that saves as much,
    or else the one that saves most. Where it `was_loading`, only smaller weights help.
    """
    real = _as_long_as_the_rows(spec, longest_tokens)
    before = plan_of(real)
    found: list[tuple[bool, Mend]] = []
    axes = {axis.name: axis for axis in smaller(spec, before, model.architecture, gpu)}
    names = _OF_WEIGHTS if was_loading else (*_GOES_ON, *_BEGINS_ANEW)
    wanted = [axes[name] for name in names if name in axes]
    if not was_loading and (shorter := _shorter(real)):
        wanted.append(shorter)
    for axis in wanted:
        choices = [_priced(rung, axis, real, before, plan_of) for rung in axis.rungs if not rung.last_resort]
        choices = [(rung, saved) for rung, saved in choices if saved is None or saved > 0]
        choices = [one for one in choices if not _contradicts(spec, one[0].sets)]
        if not choices:
            continue
        rung, saved = _enough(choices, missing_bytes)
        goes_on = axis.name in _GOES_ON and not (axis.name == "batch" and spec.extra_arguments.get(_DROPS_LAST))
        mend = Mend(rung.title, _assignments(rung.sets), saved, has_checkpoint and not goes_on)
        found.append((goes_on, mend))
    # Sorting keeps the order of what is alike.
    found.sort(key=lambda one: (not one[0], not _is_enough(one[1].saved_bytes, missing_bytes)))
    return tuple(mend for _, mend in found)


def mended(spec: RunSpec, mend: Mend) -> RunSpec:
    """Return the spec with a mend made. Raises SftuiError for one that sets what no mend sets, or makes no spec."""
    sets: dict[str, Any] = {}
    for assignment in mend.sets:
        name, _, value = assignment.partition("=")
        if name not in SETS:
            raise SftuiError("This is no mend", f"It would set {name}.", "Change the spec yourself, and resume.")
        sets[name] = parse_value(name, value)
    values = spec.model_dump(exclude={"extra_arguments"})
    return build_spec({**values, **spec.extra_arguments, **sets})


def _priced(rung: Rung, axis: Axis, spec: RunSpec, before: Plan, plan_of: PlanOf) -> tuple[Rung, int | None]:
    after = plan_of(applied(spec, rung.sets))
    if before.memory is None or after.memory is None:
        return rung, None
    sizes = {part.name: part.bytes for part in after.memory.parts}
    # A part that is not known is taken to be what it was; where that is what the axis changes, nothing is known.
    unknown = {part.name for part in before.memory.parts if part.bytes is None or sizes.get(part.name) is None}
    if axis.name not in _BEGINS_ANEW and "activations" in unknown:
        return rung, None
    known = [part for part in before.memory.parts if part.name not in unknown]
    return rung, sum((part.bytes or 0) - (sizes[part.name] or 0) for part in known)


def _enough(choices: list[tuple[Rung, int | None]], missing: int | None) -> tuple[Rung, int | None]:
    if missing is None or any(saved is None for _, saved in choices):
        return choices[0]
    enough = [one for one in choices if _is_enough(one[1], missing)]
    return enough[0] if enough else max(choices, key=lambda one: one[1] or 0)


def _is_enough(saved: int | None, missing: int | None) -> bool:
    return missing is None or saved is None or saved >= missing * _MARGIN


def _contradicts(spec: RunSpec, sets: Mapping[str, Any]) -> bool:
    return any(problem.level == "error" for problem in contradictions(applied(spec, sets)))


def _as_long_as_the_rows(spec: RunSpec, longest: int | None) -> RunSpec:
    if not longest or (spec.max_length is not None and spec.max_length <= longest):
        return spec
    return spec.model_copy(update={"max_length": longest})


def _shorter(spec: RunSpec) -> Axis | None:
    length = spec.max_length
    if length is None or length // 2 < _SHORTEST:
        return None
    title = f"max_length {length // 2:,}, which cuts longer rows"
    return Axis("length", (Rung(title, "", {"max_length": length // 2}),))


def _assignments(sets: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in sets.items())
