"""From loose values, as typed or read from YAML, to a RunSpec: every problem at once, each with its fix."""

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from core.spec import plain_yaml, trl_arguments
from core.spec.contradictions import contradictions
from core.spec.option import Option
from core.spec.problems import Problem, SpecError
from core.spec.run_spec import RunSpec, SftuiOptions, options

# Older names of the same options, found in many YAML files of the field.
ALIASES = {
    "gradient_checkpointing": "activation_checkpointing",
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
    "model_name": "model_name_or_path",
}
# Arguments of `trl sft` beside those of SFTConfig that ask for nothing special at these values.
_HARMLESS: Mapping[str, Any] = {
    "dataset_config": None,
    "dataset_train_split": "train",
    "dataset_test_split": "test",
    "dataset_streaming": False,
    "streaming": False,
    "ignore_bias_buffers": False,
    "lora_task_type": "CAUSAL_LM",
}
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


@dataclass(frozen=True, slots=True)
class Checked:
    """A spec, if the values make one, and everything there is to say about them."""

    spec: RunSpec | None
    problems: tuple[Problem, ...]


def build_spec(values: Mapping[str, Any]) -> RunSpec:
    """The spec that the values make. Raises SpecError with every error at once; warnings do not stop it."""
    checked = check_values(values)
    errors = tuple(problem for problem in checked.problems if problem.level == "error")
    if checked.spec is None or errors:
        raise SpecError(errors)
    return checked.spec


def check_values(values: Mapping[str, Any]) -> Checked:
    """The spec, or None, with all errors and warnings, in the order of the options."""
    known, problems = _sort_out(values)
    spec = None
    try:
        spec = RunSpec.model_validate(known)
    except ValidationError as error:
        problems += _explain(error)
    if spec is not None:
        problems += contradictions(spec)
    order = list(options())
    problems.sort(key=lambda problem: order.index(problem.field) if problem.field in order else -1)
    return Checked(spec, tuple(problems))


def parse_value(name: str, text: str) -> Any:
    """The value a person means by `text` for this option; what cannot be one stays text, for build_spec to refuse."""
    option = options().get(name)
    text = text.strip()
    if option is None:
        return _as_yaml(text)
    if not text:
        return None if option.optional else ""
    if text in option.choices:
        return text
    if dict in option.kinds or (list in option.kinds and text.startswith("[")):
        return _as_yaml(text)
    if {str, list} <= set(option.kinds) and not option.choices:
        return text
    if list in option.kinds and (not option.choices or "," in text):
        return [part.strip() for part in text.split(",") if part.strip()]
    if bool in option.kinds and text.lower() in ("true", "yes", "on", "false", "no", "off"):
        return text.lower() in ("true", "yes", "on")
    if option.optional and text.lower() in ("none", "null", "~"):
        return None
    for kind in (int, float):
        if kind in option.kinds:
            try:
                # 0,5 is half of something to many people: it must not become 5.
                return kind(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
            except ValueError:
                continue
    return text if list not in option.kinds else [text]


def _as_yaml(text: str) -> Any:
    try:
        return plain_yaml.load(text)
    except (yaml.YAMLError, RecursionError):
        return text


def value_of(values: Mapping[str, Any], name: str) -> Any:
    """What is set for an option, else its default; None for an option that must be given and is not."""
    section = values.get("sftui", {}) if name.startswith("sftui.") else values
    key = name.removeprefix("sftui.")
    if isinstance(section, Mapping) and key in section:
        return section[key]
    default = options()[name].default
    return None if type(default).__name__ == "PydanticUndefinedType" else default


def with_value(values: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy of the values with one option set; `sftui.x` goes under `sftui`."""
    if not name.startswith("sftui."):
        return {**values, name: value}
    section = values.get("sftui")
    kept = section if isinstance(section, Mapping) else {}
    return {**values, "sftui": {**kept, name.removeprefix("sftui."): value}}


def _sort_out(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    problems: list[Problem] = []
    passed_on = values.get("extra_arguments") or {}
    if not isinstance(passed_on, Mapping):
        problems.append(Problem("extra_arguments", "error", "must be `name: value` lines.", ""))
        passed_on = {}
    for key, value in {**passed_on, **values}.items():
        name = ALIASES.get(key, key)
        if name in RunSpec.model_fields:
            if name != "extra_arguments":
                known[name] = value
        elif key == "dataset_name":
            known.setdefault("datasets", [{"path": value}])
        elif key in trl_arguments.OWNED:
            problems.append(
                Problem(key, "warning", f"is not used: {trl_arguments.OWNED[key]}.", "Remove it from the file.")
            )
        elif name in trl_arguments.argument_names():
            extra[name] = value
        elif key in _HARMLESS:
            if value != _HARMLESS[key]:
                problems.append(
                    Problem(key, "error", f"is not read by sftui yet; it is {_shown(value)}.", "Remove it.")
                )
        else:
            problems.append(_unknown(key))
    if known.get("lora_target_modules") == ["all-linear"]:
        known["lora_target_modules"] = "all-linear"
    section = known["sftui"] = {} if known.get("sftui") is None else known["sftui"]
    if isinstance(section, Mapping):
        unknown = [key for key in section if key not in SftuiOptions.model_fields]
        problems += [_unknown(f"sftui.{key}") for key in unknown]
        known["sftui"] = {key: value for key, value in section.items() if key not in unknown}
    if isinstance(known.get("datasets"), str):
        known["datasets"] = [known["datasets"]]
    if isinstance(known.get("datasets"), Sequence):
        known["datasets"] = [{"path": item} if isinstance(item, str) else item for item in known["datasets"]]
    return {**known, "extra_arguments": extra}, problems


def _unknown(key: str) -> Problem:
    # Our own first: TRL has hundreds of names, of which one is always somewhat near.
    near = difflib.get_close_matches(key, {*options(), *ALIASES}, n=1, cutoff=0.75)
    near = near or difflib.get_close_matches(key, {*options(), *trl_arguments.argument_names()}, n=1, cutoff=0.6)
    fix = f"Did you mean {near[0]}?" if near else "Remove it, or look the name up in TRL's SFTConfig."
    return Problem(key, "error", "is not an option of sftui and not an argument of the installed SFTConfig.", fix)


# As shlex has them.
_COMMAND_FAULTS = {
    "Value error, No closing quotation": "a quote is not closed",
    "Value error, No escaped character": "nothing follows the last \\",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 58


def _explain(error: ValidationError) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        place = [str(part) for part in detail["loc"]]
        dotted = ".".join(place[:2]) if place and place[0] == "sftui" else (place[0] if place else "spec")
        option = options().get(dotted)
        if detail["type"] == "missing" and len(place) == 1:
            problem = Problem(dotted, "error", "is missing.", _missing_fix(option))
        elif place and place[0] == "datasets" and len(place) > 1:
            problem = _dataset_problem(place, detail["msg"], detail.get("input"))
        elif dotted == "sftui.on_finish" and detail["type"] == "value_error":
            message = (
                f"is no command: {_COMMAND_FAULTS.get(detail['msg'], detail['msg'])} in {_shown(detail['input'])}."
            )
            problem = Problem(dotted, "error", message, "Close it, put \\ before it, or write a list of arguments.")
        elif option is not None:
            problem = _wrong_value(option, detail["input"])
        elif dotted == "sftui":
            message = f"must be a section of `name: value` lines; it is {_shown(detail['input'])}."
            problem = Problem(dotted, "error", message, "")
        else:
            problem = Problem(dotted, "error", f"{detail['msg']}; it is {_shown(detail.get('input'))}.", "")
        problems.setdefault(problem.field, problem)
    return list(problems.values())


def _wrong_value(option: Option, given: Any) -> Problem:
    if given in ("", []):
        return Problem(option.name, "error", "is empty.", _missing_fix(option))
    quoted = option.kinds == (str,) and not option.choices and not isinstance(given, str | list | dict)
    fix = "Put it in quotes." if quoted and given is not None else ""
    return Problem(option.name, "error", f"must be {option.allowed()}; it is {_shown(given)}.", fix)


def _dataset_problem(place: Sequence[str], message: str, given: Any) -> Problem:
    field = f"datasets[{place[1]}]" + "".join(f".{part}" for part in place[2:3])
    words = {
        "Field required": "is missing.",
        "Extra inputs are not permitted": "is not a key of a dataset entry.",
    }
    if len(place) == 2:
        words[message] = f"must be a path or a dataset entry; it is {_shown(given)}."
    fix = "An entry has path, data_files, name, data_dir, split, columns and fraction."
    return Problem(field, "error", words.get(message, f"{message}; it is {_shown(given)}."), fix)


def _missing_fix(option: Option | None) -> str:
    return f"{option.title}: {option.help}" if option else ""


def _shown(value: Any) -> str:
    # Not repr: a few lines of YAML with anchors can stand for more text than there is memory.
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
