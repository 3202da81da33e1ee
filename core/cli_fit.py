"""`sftui plan SPEC --fit`: what would make it fit, or faster where memory is left over, as flags to give."""

import json
import shlex
from typing import Any

from core.errors import SftuiError
from core.memory.fit import Change, Fit, Known, find_fit
from core.memory.plan import Plan, PlanFacts
from core.spec.run_spec import RunSpec
from core.text import human_bytes


def fit_here(spec: RunSpec, facts: PlanFacts, plan: Plan) -> Fit:
    """Return the way to a spec that fits this machine. Raises SftuiError where it is not known whether it does."""
    if facts.model is None:
        raise SftuiError("Not known yet", "What the run needs is not known: there is no model.")
    gpu = next((gpu for gpu in facts.gpus.gpus if gpu.uuid == plan.device.uuid), None)
    form = facts.data.form if facts.data is not None else "unknown"
    return find_fit(spec, facts.plan, Known(facts.model.architecture, gpu, form))


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """The form of `sftui plan --fit --json`, under `fit`."""
    memory = fit.after.memory
    return {
        "goal": fit.goal,
        "verdict": fit.after.verdict,
        "total_bytes": memory.known_bytes if memory is not None else None,
        "missing_bytes": fit.missing_bytes,
        "speed": fit.speed,
        "changes": [
            {
                "title": change.title,
                "reason": change.reason,
                "saves_bytes": change.saved_bytes,
                "speed": change.speed,
                "suggested": change.suggested,
                "set": dict(change.sets),
            }
            for change in fit.changes
        ],
        "flags": _flags(fit.taken),
    }


def describe_fit(fit: Fit) -> str:
    """The same in lines for a person."""
    title = "make it fit" if fit.goal == "fit" else "make it fast"
    if not fit.changes:
        lacks = f"no change would: {fit.missing_bytes / 1e6:,.0f} MB are missing"
        return f"{title}  {lacks if not fit.fits else 'it is as fast as this memory allows'}"
    lines = [title]
    for change in fit.changes:
        mark = "?" if change.suggested else "-"
        size = f"{'−' if change.saved_bytes >= 0 else '+'}{human_bytes(abs(change.saved_bytes))}"
        lines.append(f"  {mark} {change.title:30} {size:>9}  {change.speed}".rstrip())
        lines.append(f"      {change.reason}")
    memory, free = fit.after.memory, human_bytes(fit.after.device.free_bytes)
    needed = human_bytes(memory.known_bytes if memory is not None else None)
    lines.append(f"then     {needed} of {free} free: {fit.after.verdict.replace('_', ' ')}")
    if fit.missing_bytes:
        lines.append(f"missing  {fit.missing_bytes / 1e6:,.0f} MB, though this is the smallest")
    if fit.speed:
        lines.append(f"speed    {fit.speed}: from published figures, not measured")
    lines.append(f"with     {' '.join(_flags(fit.taken))}")
    if suggested := [change for change in fit.changes if change.suggested]:
        lines.append(f"perhaps  {' '.join(_flags(suggested))}")
    return "\n".join(lines)


def _flags(changes: list[Change] | tuple[Change, ...]) -> list[str]:
    sets = {name: value for change in changes for name, value in change.sets.items()}
    # An argument that is passed on is taken away by its default.
    return [f"--set {shlex.quote(f'{name}={_written(value is not None and value)}')}" for name, value in sets.items()]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
