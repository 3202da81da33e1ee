"""Rows as the datasets that TRL trains on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.data.formats import DataFacts, Form, check_row, read_facts, read_rows
from core.errors import SftuiError
from core.spec.run_spec import RunSpec

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What is trained on, and what is held out."""

    form: Form
    train: Dataset
    held_out: Dataset | None


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """A conversation up to the answer, and the answer that the dataset gives."""

    messages: tuple[dict[str, str], ...] | str
    """Messages, or a plain text to go on from."""
    shown: str
    expected: str | None


def prepare_data(spec: RunSpec) -> PreparedData:
    """Read the spec's files. Raises SftuiError that names every bad row (the first twenty in words)."""
    form, train = _read([file for source in spec.datasets for file in source.files()])
    if spec.sftui.held_out_file is not None:
        held_out_form, held_out = _read([Path(spec.sftui.held_out_file).expanduser()])
        if held_out_form != form:
            raise SftuiError(
                "The held-out file is in another form",
                f"{spec.sftui.held_out_file} is in {held_out_form} form, the training rows are in {form} form.",
                "Bring both into the same form.",
            )
        return PreparedData(form, train, held_out)
    if spec.test_split_size is not None:
        if len(train) < 2:
            raise SftuiError(
                "Too few rows", f"{len(train)} row cannot be split.", "Add rows, or empty test_split_size."
            )
        split = train.train_test_split(test_size=spec.test_split_size, seed=spec.seed)
        return PreparedData(form, split["train"], split["test"])
    return PreparedData(form, train, None)


def sample_prompts(spec: RunSpec, data: PreparedData) -> list[SamplePrompt]:
    """The spec's own prompts, and those of the first held-out rows with their answers."""
    own = [SamplePrompt(({"role": "user", "content": text},), text, None) for text in spec.sftui.sample_prompts]
    rows = data.held_out.select(range(min(spec.sftui.sample_rows, len(data.held_out)))) if data.held_out else []
    return own + [prompt for row in rows if (prompt := _prompt_of(row, data.form)) is not None]


def _prompt_of(row: dict[str, Any], form: Form) -> SamplePrompt | None:
    if form == "messages":
        messages = row["messages"]
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        if last == 0:
            return None
        return SamplePrompt(tuple(messages[:last]), messages[last - 1]["content"], messages[last]["content"])
    if form == "prompt-completion":
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str):
            return SamplePrompt(prompt, prompt, completion)
        return SamplePrompt(tuple(prompt), prompt[-1]["content"], completion[0]["content"])
    return None


def _read(files: Sequence[Path]) -> tuple[Form, Dataset]:
    facts = read_facts(files)
    if facts.problems:
        raise SftuiError(*_problem_words(facts))
    if facts.form == "unknown":
        raise SftuiError("There are no rows", f"Nothing to train on in {', '.join(map(str, files))}.")
    columns = {"messages": ["messages"], "prompt-completion": ["prompt", "completion"], "text": ["text"]}[facts.form]
    rows = [_plain(row.value, columns) for row in read_rows(files) if check_row(row.value, facts.form) is None]
    return facts.form, Dataset.from_list(rows)


def _plain(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    # Other keys of a message differ from row to row, and Arrow would fill each with null for all.
    def message(value: Any) -> Any:
        return {"role": value["role"], "content": value["content"]} if isinstance(value, dict) else value

    return {
        name: [message(item) for item in row[name]] if isinstance(row[name], list) else row[name] for name in columns
    }


def _problem_words(facts: DataFacts) -> tuple[str, str, str]:
    count = len(facts.problems)
    lines = [str(problem) for problem in facts.problems[:_SHOWN_PROBLEMS]]
    more = [f"… and {count - _SHOWN_PROBLEMS} more"] if count > _SHOWN_PROBLEMS else []
    title = "A row is wrong" if count == 1 else f"{count} rows are wrong"
    return title, "\n".join(lines + more), "Mend or remove them. `sftui data FILE` lists all."
