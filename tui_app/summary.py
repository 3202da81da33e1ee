"""The whole draft in readable words, by step, with the reasons of what sftui chose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from textual.content import Content

from core.spec.build import value_of
from core.spec.run_spec import options
from core.text import human_bytes, human_count, safe
from tui_app.draft import Step, step_of
from tui_app.source_text import source_texts
from tui_app.widgets.fact_list import BLANK, Fact, heading
from tui_app.widgets.spec_form import shown_value

if TYPE_CHECKING:
    from core.choice import Choice
    from core.spec.problems import Problem
    from tui_app.draft import Draft

_METHODS = {
    "qlora": "QLoRA: adapters on a quantized base model",
    "lora": "LoRA: adapters on the base model in full precision",
    "full": "Full fine-tuning: every weight is trained",
}
_QUANTIZATIONS = {"none": "none", "nf4": "4-bit NF4", "fp4": "4-bit FP4", "int8": "8-bit"}
# Shown whether set or not: one wants to see them before a run.
_ALWAYS = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "lr_scheduler_type",
    "optim",
    "activation_checkpointing",
    "seed",
    "max_length",
    "packing",
)
_TOLD_ELSEWHERE = {
    "model_name_or_path",
    "datasets",
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "use_peft",
}


def problem_facts(problems: Sequence[Problem], steps: Sequence[Step]) -> list[Fact]:
    """Every problem with the key of the step that mends it."""
    facts: list[Fact] = []
    for problem in problems:
        step = step_of(problem.field)
        mark, style = ("✗", "bold $error") if problem.level == "error" else ("!", "bold $warning")
        option = options().get(problem.field) or options().get(f"sftui.{problem.field}")
        title = option.title if option else problem.field
        facts.append(
            Fact(
                f"{mark} {steps.index(step) + 1} {step.title()}",
                Content.assemble((safe(title), style), f": {safe(problem.message)}"),
                problem.fix,
            )
        )
    return facts


def summary(draft: Draft) -> list[Fact]:
    """Everything that is set, grouped by step, and what sftui chose itself."""
    facts: list[Fact] = []
    for title, rows in _groups(draft):
        facts += [BLANK] if facts else []
        facts += [heading(title), *(Fact(name, value, reason) for name, value, reason in rows)]
    return facts


def _groups(draft: Draft) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    choices = {choice.name: choice for choice in (draft.plan.choices if draft.plan else ())}
    yield "1 Model", _model(draft)
    yield "2 Data", [*_data(draft), *_set_options(draft, "data", choices)]
    yield "3 Precision", [*_method(draft), *_set_options(draft, "precision", choices)]
    yield "4 Training", _set_options(draft, "training", choices)
    # What no option is named after was chosen all the same.
    others = [
        (name.replace("_", " ").capitalize(), choice.value, choice.reason)
        for name, choice in choices.items()
        if name != "auto_class" and name not in options() and f"sftui.{name}" not in options()
    ]
    if others:
        yield "Chosen by sftui", others
    yield "Memory", _memory(draft)


def _model(draft: Draft) -> list[tuple[str, str, str]]:
    named = str(draft.values.get("model_name_or_path") or "none chosen yet")
    rows = [("Model", named, "")]
    if draft.model is not None:
        it = draft.model.architecture
        rows.append(("Type", f"{it.model_type}, {human_count(it.parameters)} parameters", ""))
        rows.append(("Loaded by", it.auto_class, it.reason))
    return rows


def _data(draft: Draft) -> list[tuple[str, str, str]]:
    rows = [("Training rows", ", ".join(source_texts(draft.values)) or "none chosen yet", "")]
    if draft.data is not None:
        rows.append(("Rows", f"{human_count(draft.data.rows)}, {draft.data.form}", draft.data.reason))
        if draft.data.bad_rows:
            what = "skipped" if value_of(draft.values, "sftui.bad_rows") == "skip" else "listed on step 2"
            rows.append(("Rows with a problem", f"{draft.data.bad_rows:,}", what))
    return rows


def _method(draft: Draft) -> list[tuple[str, str, str]]:
    if draft.spec is None:
        return []
    return [
        ("Method", _METHODS[draft.spec.method], ""),
        ("Quantization", _QUANTIZATIONS[draft.spec.quantization], ""),
    ]


def _set_options(draft: Draft, step: Step, choices: dict[str, Choice]) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for name, option in options().items():
        if name in _TOLD_ELSEWHERE or step_of(name) != step:
            continue
        value = value_of(draft.values, name)
        choice = choices.get(name) or choices.get(name.removeprefix("sftui."))
        if choice is not None:
            rows.append((option.title, choice.value, choice.reason))
        elif (value != option.default or name in _ALWAYS) and _matters(draft, name):
            reason = "default" if value == option.default else ""
            rows.append((option.title, _in_words(value, name), reason))
    return rows


def _in_words(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return shown_value(value, name) or "none"


def _matters(draft: Draft, name: str) -> bool:
    values: Any = draft.values
    if name.startswith("lora_") or name in ("use_rslora", "use_dora"):
        return value_of(values, "use_peft") is True
    if name in ("use_bnb_nested_quant", "bnb_4bit_quant_storage"):
        return value_of(values, "load_in_4bit") is True
    if name in ("eval_steps", "save_steps"):
        return bool(value_of(values, name.replace("_steps", "_strategy")) == "steps")
    return True


def _memory(draft: Draft) -> list[tuple[str, str, str]]:
    if draft.plan is None:
        return [("Device", "not planned yet", "")]
    device = draft.plan.device
    rows = [("Device", device.name, "host memory" if device.kind == "cpu" else f"GPU {device.index}")]
    if draft.plan.memory is not None:
        known = human_bytes(draft.plan.memory.known_bytes)
        complete = draft.plan.memory.total_is_complete
        rows.append(("Needs", known if complete else f"at least {known}", f"of {human_bytes(device.total_bytes)}"))
    rows.append(("Verdict", draft.plan.verdict.replace("_", " "), draft.plan.verdict_reason))
    return rows
