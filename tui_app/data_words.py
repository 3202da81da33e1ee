"""What the Data screen says of rows: how far their reading is, what they are, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from core.data.rows import KIND_TITLES
from core.text import human_bytes, human_duration, safe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.data.facts import DataFacts, Progress
    from core.data.rows import DataProblem
    from core.data.seen_row import SeenRow
    from core.data.token_statistics import TokenStatistics
    from core.spec.run_spec import RunSpec
    from tui_app.draft import Draft
    from tui_app.measured_rate import MeasuredRate
    from tui_app.token_passes import TokenState

_FORMS: Mapping[str, str] = {
    "messages": "conversations",
    "prompt-completion": "prompts and answers",
    "text": "plain text",
    "unknown": "not recognised",
}


def headline(draft: Draft, progress: Progress | None) -> Content:
    """The lines over everything: the reading as it goes, or what the rows are."""
    if draft.needs_data:
        return _reading(progress)
    if draft.data_problem is not None:
        again = Content.assemble("   ", ("^r", "bold $accent"), " reads the rows again")
        return Content.styled(safe(f"✗ {draft.data_problem.title}"), "bold $error") + again
    if draft.data is None:
        return Content.styled("Name a file, a folder or a dataset.", "$secondary")
    lines = [_rows(draft.data)]
    if draft.data.form == "unknown":
        if draft.data.sample:
            lines.append(Content.assemble(("m", "bold $accent"), " says which column is what."))
    elif count := left_out(draft):
        lines.append(_bad_rows(count, skips=bad_rows_are_skipped(draft)))
    return Content("\n").join(lines)


def left_out(draft: Draft) -> int:
    """Rows that cannot be learnt from, as far as that is known: wrong ones, and those whose tokens are no use."""
    if draft.data is None:
        return 0
    tokens = draft.tokens
    refused = max(draft.data.with_images, tokens.refused_rows if tokens else 0)
    return draft.data.bad_rows + refused + (tokens.dropped if tokens else 0)


def bad_rows_are_skipped(draft: Draft) -> bool:
    """Whether a run leaves bad rows out instead of refusing to start."""
    from core.spec.build import value_of

    return bool(value_of(draft.values, "sftui.bad_rows") == "skip")


def _reading(progress: Progress | None) -> Content:
    if progress is None:
        return Content.assemble(("Reading the rows …   ", "$secondary"), ("^t", "bold $accent"), " stops")
    verb = "Downloading" if progress.downloading else "Reading"
    words = f"{verb} {human_bytes(progress.bytes_done)} of {human_bytes(progress.bytes_total or None)}"
    if not progress.downloading:
        words += f", {progress.rows:,} rows, {progress.problems:,} problems"
    if progress.bytes_per_second:
        words += f", {human_bytes(progress.bytes_per_second)}/s"
    return Content.assemble(words + "   ", ("^t", "bold $accent"), " stops")


def _rows(facts: DataFacts) -> Content:
    count = sum(facts.counts_by_kind.values())
    bad = f", {count:,} {'problem' if count == 1 else 'problems'} (p)" if count else ", no problems"
    form, name = _FORMS[facts.form], safe(facts.format_name)
    what = form if facts.form == "unknown" or form == name else f"{name}: {form}"
    return Content.assemble(
        (f"{facts.rows:,} {'row' if facts.rows == 1 else 'rows'}", "bold"),
        (bad, "$warning" if count else ""),
        ("   ✗ " if facts.form == "unknown" else "   ", "$error"),
        (what, "bold $error" if facts.form == "unknown" else ""),
    )


def recognised(facts: DataFacts | None) -> str:
    """What the rows were taken for, and why; of several sources each."""
    if facts is None:
        return ""
    if len(facts.sources) > 1:
        return "\n".join(
            f"{source.label}: {source.used:,} rows, {source.format_name}: {source.reason}." for source in facts.sources
        )
    if facts.form == "unknown":
        return ""
    return f"Taken for {facts.format_name}: {facts.reason}."


def _bad_rows(count: int, *, skips: bool) -> Content:
    rows = "1 bad row" if count == 1 else f"{count:,} bad rows"
    if skips:
        words = f"! {rows} left out of the run   "
        return Content.assemble((words, "$warning"), ("b", "bold $accent"), " stops at them instead")
    words = f"✗ {rows} {'stops' if count == 1 else 'stop'} the run: mend {'it' if count == 1 else 'them'}, or   "
    return Content.assemble((words, "bold $error"), ("b", "bold $accent"), " leaves them out")


def problem_list(facts: DataFacts, refused: Sequence[DataProblem] = ()) -> Content:
    """Problems by kind, where the complete report is, and the first ones, each with its place and what mends it.

    `refused` are the first rows that cannot be tokenized.
    """
    if not facts.problems and not refused:
        return Content("No problems.")
    lines = [*_refused_lines(refused), *([Content("")] if refused and facts.problems else [])]
    return Content("\n").join([*lines, *(_fact_lines(facts) if facts.problems else [])])


def _refused_lines(refused: Sequence[DataProblem]) -> list[Content]:
    if not refused:
        return []
    return [Content.styled("Rows that cannot be tokenized:", "bold"), *map(_problem_line, refused)]


def _fact_lines(facts: DataFacts) -> list[Content]:
    counted = sorted(facts.counts_by_kind.items(), key=lambda item: -item[1])
    total = sum(facts.counts_by_kind.values())
    kinds = ", ".join(f"{count:,} × {KIND_TITLES[kind]}" for kind, count in counted)
    lines = [Content.assemble((f"{total:,} {'problem' if total == 1 else 'problems'}", "bold"), f": {kinds}")]
    if facts.report is not None:
        shown = "" if total <= len(facts.problems) else f", the first {len(facts.problems):,} below"
        lines.append(Content.styled(safe(f"All of them: {facts.report}{shown}"), "$secondary"))
    return [*lines, *map(_problem_line, facts.problems)]


def _problem_line(problem: DataProblem) -> Content:
    mark, style = ("✗", "bold $error") if problem.level == "error" else ("!", "bold $warning")
    place = f"{problem.line}" if problem.column is None else f"{problem.line}:{problem.column}"
    return Content.assemble(
        (f"{mark} {safe(problem.file.name)}:{place} ", style),
        safe(problem.message),
        (f" {safe(problem.fix)}", "$secondary"),
    )


def no_row(draft: Draft) -> str:
    """Why there is no row to show."""
    if draft.needs_data:
        return "Rows are shown when they are read."
    if draft.data is None:
        return "There are no rows yet: name a file, a folder or a dataset."
    if draft.data.form == "unknown" and draft.data.sample:
        return "Not recognised: m says which column is what."
    return "No row can be used: see the problems (p)." if draft.data.bad_rows else "There are no rows."


def waiting_for_tokens(draft: Draft, *, warm: bool) -> str:
    """Why the turns are shown and not the tokens."""
    if draft.model is None:
        return "Choose a model (1) to see the tokens."
    return (
        "The tokens follow: the tokenizer is being loaded …"
        if warm
        else ("No tokens now: a run has the runner that knows them.")
    )


def decisions(seen: SeenRow) -> str:
    """What was decided and mended about the chat template and the tokenizer, a line each."""
    lines = [f"{name} {value}: {reason}." for name, value, reason in seen.choices if name != "loss"]
    return "\n".join(lines + [f"{title}: {message}" for title, message in seen.notices])


def training_time(spec: RunSpec, figures: TokenStatistics, rate: MeasuredRate | None) -> str:
    """How long the whole training takes, as far as runs before tell."""
    from tui_app.measured_rate import seconds_of

    if rate is None or not figures.tokens_per_epoch:
        return "known after the first steps of a run"
    seconds = seconds_of(spec, figures.tokens_per_epoch, figures.steps_per_epoch, rate)
    length = f"{spec.max_steps:,} steps" if spec.max_steps > 0 else f"{spec.num_train_epochs:g} epochs"
    return f"about {human_duration(seconds)} for {length}, at {rate.tokens_per_second:,.0f} tokens/s"


def counting(draft: Draft, tokens: TokenState | None, *, warm: bool) -> Content:
    """How far the counting of tokens is, and what holds it up."""
    if draft.data is None or not draft.data.rows:
        return Content.styled("Numbers follow when there are rows.", "$secondary")
    if draft.model is None:
        return Content.styled("Choose a model (1): its tokenizer counts the rows.", "$secondary")
    if tokens is None:
        words = (
            "Counting begins when the libraries are loaded …" if warm else "Nobody counts now: a run has the runner."
        )
        return Content.styled(words, "$secondary")
    if tokens.problem is not None:
        problem = tokens.problem
        return Content.styled(safe(f"✗ {problem.title}: {problem.message} {problem.hint}"), "bold $error")
    done = f"{tokens.counted:,} of {len(tokens.counts):,} rows"
    if tokens.complete:
        rows = len(tokens.counts)
        return Content.styled("The one row" if rows == 1 else f"All {rows:,} rows", "bold")
    if tokens.paused or not warm:
        why = tokens.paused or "a run has the runner that counts"
        return Content.styled(safe(f"! Paused at {done}: {why}"), "$warning")
    if not tokens.counted:
        return Content.styled("Counting begins when the libraries are loaded …", "$secondary")
    left = f", {human_duration(round(tokens.seconds_left))} left" if tokens.seconds_left else ""
    return Content.styled(f"Counting, {done}{left} …", "bold")
