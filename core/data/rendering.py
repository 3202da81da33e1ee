"""Rows as the datasets that a run trains and is evaluated on, and the prompts that it is asked."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.check_process import check_apart
from core.data.facts import DataFacts, Progress
from core.data.request import CheckRequest, held_out_request, training_request
from core.data.row_store import RowStore
from core.data.rows import DataProblem, Form
from core.data.tokenized import Tokenized, tokenize_store
from core.data.tokenizing import RowTokenizer
from core.data.tokenizing_options import tokenizing_options, tokens_key
from core.data.training_rows import Fitting, TrainingRows, fit
from core.errors import SftuiError
from core.runs import events
from core.spec.problems import SpecError
from core.spec.run_spec import RunSpec

_SHOWN_PROBLEMS = 20
_KINDS_OF_WARNINGS = ("duplicate", "column_changes_type", "turn_order")


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """A conversation up to the answer, and the answer that the dataset gives."""

    messages: tuple[dict[str, Any], ...] | str
    """Messages, or a plain text to go on from."""
    shown: str
    expected: str | None
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What is trained on, and what is held out."""

    form: Form
    train: TrainingRows
    held_out: TrainingRows | None
    tokenizer: RowTokenizer
    store: RowStore
    """The rows that the training rows are made of."""
    held_out_store: RowStore
    """The rows that those held out are made of; the same store where a share is held out."""
    told: events.DataPrepared
    content_hashes: tuple[str, ...]
    """Of the training rows, and of those of a held-out file."""

    def close(self) -> None:
        """Give back the files; the tokens stay."""
        self.store.close()
        self.held_out_store.close()


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What the data is prepared with, beside the spec."""

    tokenizer: Any
    folder: Path
    """The model's."""
    tell: Callable[[events.Event], object]
    stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Source:
    """One set of files, read and tokenized."""

    facts: DataFacts
    store: RowStore
    tokenized: Tokenized
    key: str


def prepare_data(spec: RunSpec, request: DataRequest) -> PreparedData:
    """Check, tokenize, cut, split and pack the spec's rows; what was done before is taken from the cache.

    Raises SftuiError that names the first bad rows where they are not to be skipped, and StoppedError soon after a
    stop was asked for.
    """
    with ExitStack() as opened:
        data = _prepare(spec, request, opened)
        # They stay open for as long as the data is used.
        opened.pop_all()
        return data


def _prepare(spec: RunSpec, request: DataRequest, opened: ExitStack) -> PreparedData:
    facts = _check(spec, training_request(spec), request)
    options = tokenizing_options(spec, facts.form)
    tokenizer = RowTokenizer(request.tokenizer, options.learn_from, turns=options.turns)
    refusals = tuple(problem for problem in tokenizer.problems if problem.level == "error")
    if refusals:
        raise SpecError(refusals)

    def read(facts: DataFacts) -> _Source:
        assert facts.store is not None, "there are rows"
        store = opened.enter_context(RowStore.open(facts.store))
        key = tokens_key(facts, request.folder, options)

        def tell(done: int, rows: int) -> None:
            request.tell(events.DataProgressed("tokenizing", done, rows))

        return _Source(facts, store, tokenize_store(store, tokenizer, key, tell, request.stop), key)

    source = held = read(facts)
    wanted = held_out_request(spec)
    numbers = np.arange(len(source.store))
    held_numbers = numbers[:0]
    if wanted is not None:
        held = read(_check_held_out(spec, wanted, facts.form, request))
        held_numbers = np.arange(len(held.store))
    elif spec.test_split_size is not None:
        numbers, held_numbers = split(len(numbers), spec.test_split_size, spec.seed)
    train, fitting = _fit(source, numbers, Fitting.of(spec), "train"), Fitting.of(spec, held_out=True)
    held_out = _fit(held, held_numbers, fitting, "held out") if len(held_numbers) else None
    sources = [source] if held is source else [source, held]
    told = _tell(sources, train, held_out)
    if spec.sftui.bad_rows == "stop":
        _refuse_dropped(spec, [(source, train), *([(held, held_out)] if held_out is not None else [])])
    if not len(train):
        raise SftuiError(
            "There is nothing to train on",
            f"No row has anything to learn from within {spec.max_length} tokens."
            if told.dropped_rows
            else "All rows were left out.",
            "Raise max_length." if told.dropped_rows else "Run `sftui data FILE --model M` to see why.",
        )
    hashes = tuple(one.facts.content_hash for one in sources)
    return PreparedData(facts.form, train, held_out, tokenizer, source.store, held.store, told, hashes)


def split(rows: int, share: float, seed: int) -> tuple[Any, Any]:
    """Numbers of the rows to train on and of those held out, as `train_test_split` of datasets draws them."""
    held_out = math.ceil(share * rows)
    if rows < 2 or held_out >= rows:
        few = f"{rows:,} row" if rows == 1 else f"{rows:,} rows"
        raise SftuiError("Too few rows", f"{few} cannot be split.", "Add rows, or empty test_split_size.")
    order = np.random.default_rng(seed).permutation(rows)
    return order[held_out:], order[:held_out]


def _check(spec: RunSpec, wanted: CheckRequest, request: DataRequest, what: str = "") -> DataFacts:
    def tell(progress: Progress) -> None:
        request.tell(events.DataProgressed("checking", progress.bytes_done, progress.bytes_total))

    facts = check_apart(wanted, tell, request.stop)
    if facts.bad_rows and spec.sftui.bad_rows == "stop":
        raise _bad_rows(facts.problems, facts.bad_rows)
    if not facts.rows or facts.store is None:
        named = ", ".join(source.path for source in wanted.sources)
        raise SftuiError(
            f"There are no {what}rows", f"Nothing in {named} can be trained on.", "`sftui data` tells why."
        )
    return facts


def _check_held_out(spec: RunSpec, wanted: CheckRequest, form: Form, request: DataRequest) -> DataFacts:
    facts = _check(spec, wanted, request, "held-out ")
    if facts.form != form:
        raise SftuiError(
            "The held-out file is in another form",
            f"{spec.sftui.held_out_file} is in {facts.form} form, the training rows are in {form} form.",
            "Bring both into the same form.",
        )
    return facts


def _fit(source: _Source, numbers: Any, fitting: Fitting, name: str) -> TrainingRows:
    # Rows that could not be tokenized are not in the file: their numbers lead nowhere.
    file = source.tokenized.file
    places = np.searchsorted(file.rows, numbers)
    there = places < len(file)
    there[there] = file.rows[places[there]] == numbers[there]
    return TrainingRows(file, fit(file, places[there], fitting), fitting, f"{source.key} {name}")


def _tell(sources: Sequence[_Source], train: TrainingRows, held_out: TrainingRows | None) -> events.DataPrepared:
    kinds: Counter[str] = Counter()
    for source in sources:
        kinds.update(
            {kind: count for kind, count in source.facts.counts_by_kind.items() if kind not in _KINDS_OF_WARNINGS}
        )
        kinds.update(source.tokenized.refused_kinds)
    parts = [train] if held_out is None else [train, held_out]
    tokens, trained = train.count_tokens()
    return events.DataPrepared(
        form=sources[0].facts.form,
        train_rows=train.rows,
        held_out_rows=held_out.rows if held_out is not None else 0,
        skipped_rows=sum(one.facts.bad_rows + sum(one.tokenized.refused_kinds.values()) for one in sources),
        skipped_kinds=tuple(events.KindCount(kind, count) for kind, count in kinds.most_common()),
        dropped_rows=sum(len(part.fitted.dropped) for part in parts),
        truncated_rows=sum(part.fitted.truncated for part in parts),
        sequences=len(train),
        tokens=tokens,
        trained_tokens=trained,
    )


def _refuse_dropped(spec: RunSpec, parts: Sequence[tuple[_Source, TrainingRows]]) -> None:
    """Raise SftuiError that names the rows which cannot be tokenized, or have nothing to learn from once cut."""
    problems: list[DataProblem] = []
    count = 0
    for source in {id(source): source for source, _ in parts}.values():
        count += sum(source.tokenized.refused_kinds.values())
        for one in source.tokenized.refused[:_SHOWN_PROBLEMS]:
            row = source.store.row(one.row)
            problems.append(DataProblem(row.file, row.line, None, one.kind, one.message, one.fix))  # type: ignore[arg-type]
    for source, part in parts:
        dropped = source.tokenized.file.rows[part.fitted.dropped]
        count += len(dropped)
        for number in dropped[:_SHOWN_PROBLEMS]:
            row = source.store.row(int(number))
            said = f"Nothing of it is left to learn from: {spec.max_length} tokens end before."
            problems.append(DataProblem(row.file, row.line, None, "nothing_trained", said, "Raise max_length."))
    if count:
        raise _bad_rows(problems, count)


def _bad_rows(problems: Iterable[DataProblem], count: int) -> SftuiError:
    lines = [str(problem) for problem in list(problems)[:_SHOWN_PROBLEMS]]
    more = [f"… and {count - len(lines):,} more"] if count > len(lines) else []
    title = "A row is wrong" if count == 1 else f"{count:,} rows are wrong"
    hint = "Mend or remove them, or set sftui.bad_rows to skip. `sftui data FILE` lists all."
    return SftuiError(title, "\n".join(lines + more), hint)


def sample_prompts(spec: RunSpec, data: PreparedData) -> list[SamplePrompt]:
    """The spec's own prompts, and those of the first held-out rows with their answers."""
    prompts = [SamplePrompt(({"role": "user", "content": text},), text, None) for text in spec.sftui.sample_prompts]
    if data.held_out is not None:
        for number in range(min(spec.sftui.sample_rows, len(data.held_out))):
            row = data.held_out_store.row(data.held_out.pieces(number)[0].row).canonical
            prompt = _prompt_of(row)
            prompts += [prompt] if prompt is not None else []
    return prompts


def _prompt_of(row: Mapping[str, Any]) -> SamplePrompt | None:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return SamplePrompt(prompt, prompt, completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        messages = prompt + completion
    else:
        messages = row.get("messages") or []
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers or answers[-1] == 0:
        return None
    before = tuple(messages[: answers[-1]])
    return SamplePrompt(before, _text(before[-1]), _text(messages[answers[-1]]), tuple(row.get("tools") or ()))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""
