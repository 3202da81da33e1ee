"""`sftui data`: what a dataset is, what is wrong with it and, for a model, how many tokens its rows have."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.check_process import check_apart
from core.data.facts import DataFacts, Progress
from core.data.request import CheckRequest, Source, held_out_request, training_request
from core.data.rows import KIND_TITLES, DataProblem
from core.data.token_statistics import Batching, TokenCounts, TokenStatistics, statistics
from core.data.tokenizing_options import counts_file, tokenizing_options
from core.errors import SftuiError
from core.models.checkpoint_files import resolve_model_folder
from core.runs.launch import WarmRunner
from core.spec.run_spec import DatasetSource, RunSpec
from core.text import human_bytes, safe

_SHOWN = 20
_SLICE = 2000
_LINE = 78


@dataclass(frozen=True, slots=True)
class _Wanted:
    request: CheckRequest
    held_out: CheckRequest | None
    spec: RunSpec
    """With the defaults of all that was not said."""


def show_data(options: argparse.Namespace) -> bool:
    """Print what is to be known; return whether all rows can be trained on. Raises SftuiError."""
    wanted = _wanted(options)
    meter = _Meter()
    try:
        facts = check_apart(wanted.request, meter.progress)
        held_out = check_apart(wanted.held_out, meter.progress) if wanted.held_out else None
        counted = _count_tokens(facts, wanted.spec, options.model, meter) if options.model else None
    finally:
        meter.clear()
    if options.json:
        print(json.dumps(_as_json(facts, held_out, counted), indent=2))
    else:
        print("\n".join(map(safe, _as_lines(facts, held_out, counted))))
    read = [one for one in (facts, held_out) if one is not None]
    return all(one.rows > 0 and one.bad_rows == 0 for one in read) and not (counted and counted.refused_rows)


def _wanted(options: argparse.Namespace) -> _Wanted:
    from core.spec.presets import PRESETS
    from core.spec.problems import SpecError
    from core.spec.yaml_file import check_source

    first = options.sources[0]
    if len(options.sources) == 1 and (Path(first).suffix in (".yaml", ".yml") or first in PRESETS):
        checked = check_source(first, {"model_name_or_path": options.model} if options.model else {})
        # What is wrong with the rest of the spec does not matter to its data.
        errors = tuple(problem for problem in checked.problems if problem.level == "error")
        if checked.spec is None or any(problem.field.startswith(("datasets", "sftui.columns")) for problem in errors):
            raise SpecError(errors)
        return _Wanted(training_request(checked.spec), held_out_request(checked.spec), checked.spec)
    sources = [Source(source, name=options.name, split=options.split) for source in options.sources]
    datasets = [DatasetSource(path=source) for source in options.sources]
    return _Wanted(
        CheckRequest(tuple(sources)), None, RunSpec(model_name_or_path=options.model or "model", datasets=datasets)
    )


def _count_tokens(facts: DataFacts, spec: RunSpec, model: str, meter: "_Meter") -> TokenStatistics | None:
    if facts.store is None:
        return None
    folder = resolve_model_folder(model, spec.model_revision)
    options = tokenizing_options(spec, facts.form)
    try:
        kept = counts_file(facts, folder, options)
        counts = TokenCounts.read(kept, facts.rows)
        if counts is None:
            counts = _ask(facts.store, facts.rows, {"folder": str(folder), "options": options.to_json()}, meter)
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            counts.write(kept)
    except OSError as error:
        raise SftuiError("The tokens cannot be counted", f"{error.filename}: {error.strerror}.") from error
    return statistics(counts, Batching.of(spec))


def _ask(store: Path, rows: int, question: dict[str, Any], meter: "_Meter") -> TokenCounts:
    counts = TokenCounts(rows)
    warm = WarmRunner.start()
    try:
        while (start := counts.next_unknown()) is not None:
            meter.show(f"counting tokens: row {start:,} of {rows:,}")
            stop = min(start + _SLICE, rows)
            counts.add(warm.ask({"ask": "lengths", "store": str(store), "start": start, "stop": stop, **question}))
    finally:
        warm.close()
    return counts


def _as_json(facts: DataFacts, held_out: DataFacts | None, counted: TokenStatistics | None) -> dict[str, Any]:
    return {
        "format": facts.form,
        "format_name": facts.format_name,
        "reason": facts.reason,
        "mapping": facts.mapping.to_dict(),
        "columns": {column.name: column.kind for column in facts.columns},
        "rows": facts.rows,
        "bad_rows": facts.bad_rows,
        "duplicates": facts.duplicates,
        "counts": dict(facts.counts_by_kind),
        "problems": [_told(problem) for problem in (*facts.problems, *_refused(counted))],
        "report": str(facts.report) if facts.report else None,
        "sources": [
            {"label": source.label, "files": list(map(str, source.files)), "rows": source.rows, "used": source.used}
            for source in facts.sources
        ],
        "content_hash": facts.content_hash,
        "held_out": _held_out(held_out) if held_out else None,
        "tokens": _tokens(counted) if counted else None,
    }


def _refused(counted: TokenStatistics | None) -> list[DataProblem]:
    """The first rows that cannot be tokenized, as problems of their lines."""
    return [row.problem for row in counted.refused] if counted else []


def _told(problem: DataProblem) -> dict[str, Any]:
    return {
        "file": str(problem.file),
        "line": problem.line,
        "column": problem.column,
        "kind": problem.kind,
        "level": problem.level,
        "message": f"{problem.message} {problem.fix}",
    }


def _held_out(facts: DataFacts) -> dict[str, Any]:
    problems = [_told(problem) for problem in facts.problems]
    return {"format": facts.form, "rows": facts.rows, "bad_rows": facts.bad_rows, "problems": problems}


def _tokens(counted: TokenStatistics) -> dict[str, Any]:
    return {
        "p50": counted.p50,
        "p95": counted.p95,
        "max": counted.longest_length,
        "total": counted.total,
        "trained": counted.trained,
        "truncated_share": counted.truncated_share,
        "dropped_share": counted.dropped_share,
        "refused": counted.refused_rows,
        "dropped": counted.dropped,
        "steps_per_epoch": counted.steps_per_epoch,
        "tokens_per_epoch": counted.tokens_per_epoch,
        "padded_efficiency": counted.padded_efficiency,
        "packed_efficiency": counted.packed_efficiency,
    }


def _as_lines(facts: DataFacts, held_out: DataFacts | None, counted: TokenStatistics | None) -> list[str]:
    lines = [f"{facts.form}: {facts.format_name}; {facts.reason}"]
    lines += [f"columns  {slot} = {column}" for slot, column in facts.mapping.to_dict().items()]
    if facts.form == "unknown":
        lines += [f"column   {column.name}: {column.kind}" for column in facts.columns]
    lines.append(f"rows     {facts.rows:,} good, {facts.bad_rows:,} bad; {human_bytes(facts.bytes)}")
    if len(facts.sources) > 1:
        lines += [f"source   {source.label}: {source.used:,} of {source.rows:,} rows" for source in facts.sources]
    if counted is not None:
        lines.append(
            f"tokens   {counted.total:,} in all, {counted.trained:,} trained; half of the rows have at most "
            f"{counted.p50:,}, 95 % at most {counted.p95:,}, the longest {counted.longest_length:,}"
        )
        share = f"{counted.truncated_share:.1%}"
        lines.append(f"cut      {counted.truncated:,} rows ({share}); {counted.dropped:,} have nothing to learn from")
        packed = "" if counted.packed_efficiency is None else f", packed {counted.packed_efficiency:.0%}"
        lines.append(f"filled   padded {counted.padded_efficiency:.0%}{packed}")
        lines.append(f"an epoch {counted.steps_per_epoch:,} steps, {counted.tokens_per_epoch:,} tokens")
        if counted.refused_rows:
            lines.append(f"refused  {counted.refused_rows:,} rows cannot be tokenized")
    if held_out is not None:
        lines.append(f"held out {held_out.rows:,} good, {held_out.bad_rows:,} bad, {held_out.form}")
    counts = sorted(facts.counts_by_kind.items(), key=lambda item: -item[1])
    lines += [f"{count:>8,} {KIND_TITLES[kind]}" for kind, count in counts]
    shown = [*facts.problems[:_SHOWN], *_refused(counted)[:_SHOWN], *(held_out.problems[:_SHOWN] if held_out else ())]
    lines += [f"{'' if one.level == 'error' else 'warning  '}{one}" for one in shown]
    if sum(facts.counts_by_kind.values()) > _SHOWN:
        lines.append(f"all of them: {facts.report}")
    return lines


class _Meter:
    """How far it is, on one line of a terminal that is rewritten; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown = False

    def progress(self, at: Progress) -> None:
        """How far a pass is."""
        doing = "downloading" if at.downloading else "reading"
        share = f"{at.bytes_done / at.bytes_total:.0%}" if at.bytes_total else ""
        self.show(f"{doing}: {share}, {human_bytes(at.bytes_per_second)}/s, {at.rows:,} rows, {at.problems:,} problems")

    def show(self, text: str) -> None:
        """Write it over the line."""
        if sys.stderr.isatty():
            self._shown = True
            sys.stderr.write(f"\r{text:{_LINE}.{_LINE}}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave an empty line behind."""
        if self._shown:
            sys.stderr.write(f"\r{'':{_LINE}}\r")
            sys.stderr.flush()
