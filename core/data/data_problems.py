"""What a spec and the rows that it names have against each other."""

from typing import Literal

from core.data.facts import DataFacts
from core.data.rows import Form
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec

BadRows = Literal["stop", "skip"]

HELD_OUT_FIELD = "sftui.held_out_file"


def data_problems(spec: RunSpec, data: DataFacts | None) -> list[Problem]:
    """What is wrong with the training rows for this spec; nothing while they are not read."""
    if data is None:
        return []
    found = _row_problems("datasets", data, spec.sftui.bad_rows)
    found += _other_forms(data)
    if spec.assistant_only_loss and not has_turns(data) and data.form != "unknown":
        message = f"needs `messages`, and the rows are in {data.form} form."
        found.append(Problem("assistant_only_loss", "error", message, "Turn it off."))
    if spec.completion_only_loss and data.form not in ("prompt-completion", "unknown"):
        message = f"needs `prompt` and `completion`, and the rows are in {data.form} form."
        found.append(Problem("completion_only_loss", "error", message, "Turn it off."))
    if spec.sftui.sample_rows and data.form == "text":
        message = "needs prompts, and the rows are plain text."
        found.append(Problem("sftui.sample_rows", "error", message, "Set it to 0."))
    if spec.test_split_size is not None and data.rows == 1:
        message = "would leave nothing to train on: there is one row."
        found.append(Problem("test_split_size", "error", message, "Add rows, or empty it."))
    return found


def template_problems(spec: RunSpec, data: DataFacts | None, *, has_template: bool) -> list[Problem]:
    """What is missing to show turns to a model that may have no chat template of its own."""
    if has_template or spec.chat_template_path is not None:
        return []
    if spec.assistant_only_loss:
        message = "needs a chat template, and the model has none."
        fix = "Turn it off, choose an instruct model, or set chat_template_path, for example to chatml."
        return [Problem("assistant_only_loss", "error", message, fix)]
    if data is None or not has_turns(data):
        return []
    message = "is empty, and the rows hold turns, for which the model has no chat template."
    return [
        Problem("chat_template_path", "error", message, "Set it, for example to chatml, or take an instruct model.")
    ]


def has_turns(data: DataFacts) -> bool:
    """Whether the rows are conversations, which a chat template makes a text of."""
    return data.form == "messages" or (bool(data.preview) and isinstance(data.preview[0].get("prompt"), list))


def held_out_problems(held_out: DataFacts, form: Form | None, bad_rows: BadRows) -> list[Problem]:
    """What is wrong with the file of held-out rows, beside training rows in this form."""
    found = _row_problems(HELD_OUT_FIELD, held_out, bad_rows)
    if held_out.rows and form not in (None, held_out.form, "unknown"):
        message = f"is in {held_out.form} form, and the training rows are in {form} form."
        found.append(Problem(HELD_OUT_FIELD, "error", message, "Bring both into the same form."))
    return found


def _row_problems(field: str, data: DataFacts, bad_rows: BadRows) -> list[Problem]:
    unknown = [source for source in data.sources if source.form == "unknown" and source.bad_rows]
    if unknown and data.columns:
        names = ", ".join(f"`{column.name}`" for column in data.columns[:8])
        where = f"{unknown[0].label} has" if len(data.sources) > 1 else "has"
        message = f"{where} columns that say nothing: {names}."
        return [Problem(field, "error", message, "Say which column is what in sftui.columns.")]
    if data.bad_rows and (bad_rows == "stop" or not data.rows):
        count = "1 row is" if data.bad_rows == 1 else f"{data.bad_rows:,} rows are"
        message = f"{count} wrong; the first: {data.problems[0]}"
        fix = "Mend or remove them." + (" Or leave them out: sftui.bad_rows: skip." if data.rows else "")
        return [Problem(field, "error", message, fix)]
    if data.bad_rows:
        count = "1 bad row is" if data.bad_rows == 1 else f"{data.bad_rows:,} bad rows are"
        message = f"{count} left out of {data.bad_rows + data.rows:,}; the first: {data.problems[0]}"
        return [Problem(field, "warning", message, f"All of them are in {data.report}.")]
    if not data.rows:
        return [Problem(field, "error", "has no rows.", "Name a file with rows.")]
    return []


def _other_forms(data: DataFacts) -> list[Problem]:
    found = []
    for index, source in enumerate(data.sources):
        if source.rows and source.form != data.form:
            message = f"is in {source.form} form, and the rows before are in {data.form} form."
            found.append(Problem(f"datasets[{index}]", "error", message, "Bring all into the same form."))
    return found
