"""run.yaml: TRL's own argument names, flat, read and written."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import SftuiError
from core.paths import expand
from core.spec import plain_yaml
from core.spec.build import ALIASES, Checked, check_values, with_value
from core.spec.option import Group
from core.spec.presets import PRESETS
from core.spec.problems import Problem, SpecError
from core.spec.run_spec import RunSpec, options

_GROUPS: Mapping[Group, str] = {
    "model": "Model",
    "data": "Data",
    "precision": "Precision",
    "adapter": "Adapter",
    "optimizer": "Optimizer",
    "schedule": "Schedule",
    "run": "Run",
}


def read_values(path: Path) -> dict[str, Any]:
    """The values in a YAML file. Raises SpecError with file:line for bad YAML, SftuiError for an unreadable file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SftuiError("No such spec", f"{path} does not exist.", f"Presets: {', '.join(PRESETS)}.") from error
    except UnicodeDecodeError as error:
        raise SftuiError("The spec is not text", f"{path}: byte {error.start} is not UTF-8.") from error
    except OSError as error:
        raise SftuiError("The spec cannot be read", f"{path}: {error.strerror}.") from error
    try:
        values = plain_yaml.load(text)
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        words = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
        raise SpecError((Problem("YAML", "error", f"{words}.", "Mend the line.", where),)) from error
    except RecursionError as error:
        raise SpecError((Problem("YAML", "error", "is nested too deeply.", "", str(path)),)) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        message = "must be a list of `name: value` lines."
        raise SpecError((Problem("YAML", "error", message, "See `sftui plan starter --yaml`.", str(path)),))
    return values


def read_spec(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RunSpec:
    """The spec in a file, or of a preset by name, with some options overridden.

    Raises SpecError with every problem, each with the line it stands on.
    """
    checked = check_source(source, overrides)
    errors = tuple(problem for problem in checked.problems if problem.level == "error")
    if checked.spec is None or errors:
        raise SpecError(errors)
    return checked.spec


def check_source(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Checked:
    """As read_spec, but what is wrong with the values is returned, warnings too, each with its line."""
    values, lines = read_source(source)
    for name, value in (overrides or {}).items():
        values = with_value(values, name, value)
    checked = check_values(values)
    return Checked(checked.spec, tuple(_placed(problem, str(source), lines) for problem in checked.problems))


def read_source(source: str | Path) -> tuple[dict[str, Any], Mapping[str, int]]:
    """The values of a file or preset, and the line of each key (none for a preset)."""
    path = expand(source)
    # A folder may well be called "lora" or "full".
    if str(source) in PRESETS and not path.is_file():
        return dict(PRESETS[str(source)].values), {}
    return read_values(path), _key_lines(path)


def to_yaml(spec: RunSpec) -> str:
    """The whole spec with a comment on each option; read back, it gives the same spec."""
    dumped = spec.model_dump()
    lines = ["# A run of sftui, under TRL's argument names."]
    for group, title in _GROUPS.items():
        members = [o for o in options().values() if o.group == group and "." not in o.name]
        if members:
            lines += ["", f"# {title}"]
        for option in members:
            if option.name == "datasets":
                value: Any = [source.model_dump(exclude_defaults=True) for source in spec.datasets]
            else:
                value = dumped[option.name]
            lines += [f"# {option.title}: {option.help}", _entry(option.name, value)]
    if spec.extra_arguments:
        lines += ["", "# Further arguments of SFTConfig"]
        lines += [_entry(name, value) for name, value in spec.extra_arguments.items()]
    own = [option for option in options().values() if option.name.startswith("sftui.")]
    lines += ["", "# What TRL has no name for", "sftui:"]
    for option in own:
        key = option.name.removeprefix("sftui.")
        entry = _entry(key, dumped["sftui"][key])
        lines += [textwrap.indent(f"# {option.title}: {option.help}\n{entry}", "  ")]
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any) -> str:
    return plain_yaml.dump({name: value})


def _key_lines(path: Path) -> Mapping[str, int]:
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=plain_yaml.Loader)
    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[ALIASES.get(key.value, key.value)] = lines[key.value] = key.start_mark.line + 1
            if key.value == "sftui" and isinstance(value, yaml.MappingNode):
                lines.update((f"sftui.{inner.value}", inner.start_mark.line + 1) for inner, _ in value.value)
    return lines


def _placed(problem: Problem, source: str, lines: Mapping[str, int]) -> Problem:
    line = lines.get(problem.field) or lines.get(problem.field.split("[")[0])
    where = f"{source}:{line}" if line else ""
    return Problem(problem.field, problem.level, problem.message, problem.fix, where)
