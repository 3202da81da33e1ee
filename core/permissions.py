"""What a spec may run on this machine besides sftui itself, as its user has allowed it.

A run.yaml may come from anywhere, and so may a run's folder: a command and compiled kernels that they name are run only
if they are in a list of the user's own, which no such file brings along.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import SftuiError
from core.models.checkpoint_files import read_json_object
from core.paths import config_home, write_atomically
from core.spec.run_spec import RunSpec
from core.text import safe

Kind = Literal["command", "kernel", "reporter"]
_WORDS: dict[Kind, str] = {
    "command": "the command",
    "kernel": "the compiled kernel",
    "reporter": "what sends figures away by",
}
# Writes files in the run's folder, and sends nothing.
_LOCAL_REPORTERS = ("tensorboard",)


@dataclass(frozen=True, slots=True)
class Permission:
    """Something that would run, and where the spec asks for it."""

    kind: Kind
    what: str
    field: str

    def __str__(self) -> str:
        return f"{_WORDS[self.kind]} {self.what}"


def wanted(spec: RunSpec) -> tuple[Permission, ...]:
    """What a spec asks to run: the command at the end, kernels of the hub, and what sends its figures away."""
    found = [Permission("kernel", name, "sftui.allow_hub_kernels") for name in spec.sftui.allow_hub_kernels]
    away = [name for name in spec.sftui.report_to if name not in _LOCAL_REPORTERS]
    found += [Permission("reporter", name, "sftui.report_to") for name in away]
    command = spec.sftui.on_finish
    if command:
        line = shlex.join(command) if isinstance(command, list) else command
        found.append(Permission("command", line, "sftui.on_finish"))
    return tuple(found)


def missing(spec: RunSpec) -> tuple[Permission, ...]:
    """What a spec asks to run and the user has not allowed. Raises SftuiError when the list cannot be read."""
    asked = wanted(spec)
    if not asked:
        return ()
    allowed = _allowed()
    return tuple(one for one in asked if one.what not in allowed.get(one.kind, ()))


def allow(permissions: tuple[Permission, ...]) -> None:
    """Allow these on this machine, from now on. Raises SftuiError."""
    if not permissions:
        return
    allowed = _allowed()
    for one in permissions:
        allowed[one.kind] = sorted({*allowed.get(one.kind, ()), one.what})
    path = config_home() / "allowed.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(allowed, indent=2) + "\n")
    except OSError as error:
        raise SftuiError("The permission cannot be kept", f"{safe(str(path))}: {error.strerror}.") from error


def without(spec: RunSpec, refused: tuple[Permission, ...]) -> RunSpec:
    """The spec without what is refused."""
    kernels = {one.what for one in refused if one.kind == "kernel"}
    reporters = {one.what for one in refused if one.kind == "reporter"}
    changes: dict[str, Any] = {
        "allow_hub_kernels": [name for name in spec.sftui.allow_hub_kernels if name not in kernels],
        "report_to": [name for name in spec.sftui.report_to if name not in reporters],
    }
    if any(one.kind == "command" for one in refused):
        changes["on_finish"] = None
    return spec.model_copy(update={"sftui": spec.sftui.model_copy(update=changes)})


def _allowed() -> dict[str, list[str]]:
    path = config_home() / "allowed.json"
    if not path.exists():
        return {}
    read = read_json_object(path, "The list of what may run cannot be read")
    return {kind: [str(what) for what in names] for kind, names in read.items() if isinstance(names, list)}
