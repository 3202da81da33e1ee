"""What a spec and the rows that it names have against each other."""

from collections.abc import Mapping
from typing import Literal

from core.data.facts import DataFacts
from core.data.rows import Form
from core.data.token_statistics import TokenStatistics
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
    found += _unused_columns(spec, data)
    found += _images(data, spec.sftui.bad_rows)
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


def columns_are_unused(columns: Mapping[str, str], data: DataFacts) -> bool:
    """Whether columns that were named by hand are those of other rows than these."""
    return bool(columns and data.columns) and all(source.mapping.to_dict() != columns for source in data.sources)


def _unused_columns(spec: RunSpec, data: DataFacts) -> list[Problem]:
    columns = spec.sftui.columns or {}
    if not columns_are_unused(columns, data):
        return []
    there = ", ".join(f"`{column.name}`" for column in data.columns[:8])
    message = f"names {', '.join(f'`{name}`' for name in columns.values())}, and the rows have {there}."
    return [Problem("sftui.columns", "error", message, "Name columns of theirs, or remove it.")]


def _images(data: DataFacts, bad_rows: BadRows) -> list[Problem]:
    if not data.with_images:
        return []
    rows = "1 row shows" if data.with_images == 1 else f"{data.with_images:,} rows show"
    message = f"{rows} images, and sftui trains on text only."
    if bad_rows == "skip" and data.with_images < data.rows:
        return [Problem("datasets", "warning", message, "They are left out.")]
    fix = "Take rows of text, or train on the images with TRL itself."
    if data.with_images < data.rows:
        fix += " Or leave these rows out: sftui.bad_rows: skip."
    return [Problem("datasets", "error", message, fix)]


def token_problems(spec: RunSpec, found: TokenStatistics | None) -> list[Problem]:
    """What the tokens of the training rows, as far as they are counted, have against a run."""
    if found is None or not found.refused_rows + found.dropped:
        return []
    said = []
    # What shows images is told before anything is counted.
    refused = [row for row in found.refused if row.kind != "images"]
    if refused:
        first = refused[0]
        words = (
            "1 row cannot be tokenized"
            if found.refused_rows == 1
            else f"{found.refused_rows:,} rows cannot be tokenized"
        )
        said.append(f"{words}; the first: {first.file}:{first.line}: {first.message}")
    if not said and not found.dropped:
        return []
    if found.dropped:
        words = "1 row has" if found.dropped == 1 else f"{found.dropped:,} rows have"
        within = f" within {spec.max_length:,} tokens" if spec.max_length is not None else ""
        said.append(f"{words} nothing to learn from{within}.")
    none_left = found.counted == found.rows == found.refused_rows + found.dropped
    if spec.sftui.bad_rows == "skip" and not none_left:
        return [Problem("datasets", "warning", " ".join(said), "They are left out.")]
    fix = "Mend or remove them" + (", or raise max_length." if found.dropped else ".")
    return [
        Problem(
            "datasets",
            "error",
            " ".join(said),
            fix + ("" if none_left else " Or leave them out: sftui.bad_rows: skip."),
        )
    ]


def _other_forms(data: DataFacts) -> list[Problem]:
    found = []
    for index, source in enumerate(data.sources):
        if source.rows and source.form != data.form:
            message = f"is in {source.form} form, and the rows before are in {data.form} form."
            found.append(Problem(f"datasets[{index}]", "error", message, "Bring all into the same form."))
    return found
