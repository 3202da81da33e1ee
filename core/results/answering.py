"""Answers to the questions of core.results.asking, in the process that holds the model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.data.check import StoppedError
from core.data.rendering import PreparedData
from core.errors import SftuiError
from core.models import loading
from core.models.tokenizer import load_tokenizer
from core.results import another, generating, measuring
from core.results.asking import HeldOutPrompt, Measured, MeasureProgress, Opened, Phase, Sampling
from core.results.held_out import held_out_data, prompts_of, speaks_turns, without_data
from core.results.loaded import LoadedResult, load_result
from core.results.result import choices, find_result, last_result
from core.runs.folder import RunFolder
from core.text import safe

Say = Callable[[dict[str, Any]], object]
IsOver = Callable[[], bool]
_TELL_SECONDS = 0.1
# Beside the result: each one takes memory.
_MOST_OTHERS = 4


@dataclass(frozen=True, slots=True)
class _Desk:
    """What is open."""

    loaded: LoadedResult
    data: PreparedData | None
    opened: Opened
    run: RunFolder
    others: tuple[LoadedResult, ...] = ()
    """Results of other runs."""

    def holding(self, side: str) -> LoadedResult:
        """What is loaded for a side."""
        return next((one for one in self.others if side in one.models), self.loaded)


_open: _Desk | None = None


def open_result(question: Mapping[str, Any], say: Say, is_over: IsOver) -> dict[str, Any]:
    """Load a run's base model and result; with "all", the adapters of its checkpoints too. Raises SftuiError."""
    global _open  # noqa: PLW0603 - the process holds one model at a time, for as long as it lives
    if _open is not None and _open.data is not None:
        _open.data.close()
    _open = None
    run = RunFolder(Path(question["of"]))
    notices: list[tuple[str, str]] = []
    hear, check = _phases(say), _checks(is_over)
    first = (last_result if question.get("all") else find_result)(run, question["step"])
    adapters = [one for one in choices(run) if one != first and one.kind == "adapter"]
    others = tuple(adapters[:_MOST_OTHERS]) if question.get("all") else ()
    loaded = load_result(
        (first, *others), hear, check, lambda title, message: notices.append((title, message)), question["device"]
    )
    data = None
    prompts: tuple[HeldOutPrompt, ...] = ()
    turns = bool(loaded.tokenizer.chat_template)
    try:
        # Rows became tokens with the tokenizer as it was before the run.
        trusted = loading.trusts_own_code(loaded.request)
        own = load_tokenizer(
            loaded.request.folder,
            lambda *_: None,
            trusted=trusted,
            chat_template_path=loaded.spec.chat_template_path,
        )
        hear("the held-out rows", 0, 0)
        data = held_out_data(loaded.spec, loaded.request, own, hear, is_over)
        prompts, turns = prompts_of(loaded.spec, data), speaks_turns(data) and turns
    except SftuiError as error:
        notices.append(without_data(error))
    except StoppedError:
        check()
    opened = Opened(
        sides=loaded.sides,
        device=loaded.request.device,
        quantization=loaded.spec.quantization,
        dtype=loaded.request.dtype,
        speaks_turns=turns,
        prompts=prompts,
        held_out_rows=len(data.held_out) if data is not None and data.held_out is not None else 0,
        notices=tuple(notices),
    )
    _open = _Desk(loaded, data, opened, run)
    return opened.to_json()


def add_result(question: Mapping[str, Any], say: Say, is_over: IsOver) -> dict[str, Any]:
    """Load another run's result beside what is open. Raises SftuiError; what was open stays."""
    global _open  # noqa: PLW0603 - as above
    desk = _desk()
    run = RunFolder(Path(question["of"]))
    result = last_result(run, question["step"])
    sides = desk.opened.sides
    if another.side_of(result) in sides or (run.path == desk.run.path and result.name in sides):
        raise SftuiError("It is there already", f"{safe(another.side_of(result))} can be asked already.")
    notices: list[tuple[str, str]] = []
    added = another.load_beside(
        desk.loaded, result, _phases(say), _checks(is_over), lambda title, message: notices.append((title, message))
    )
    if desk.data is not None and desk.opened.held_out_rows:
        if another.may_have_learnt(desk.loaded, added):
            words = f"{run.id} may have learnt from rows that {desk.run.id} held out: its figures flatter it then."
            notices.append(("Not the same rows", words))
        if not another.reads_alike(desk.loaded, added):
            words = f"Rows become other tokens for {run.id}: only its answers are measured, no perplexity."
            notices.append(("Not the same tokens", words))
    opened = replace(desk.opened, sides=(*sides, *added.sides), notices=tuple(notices))
    _open = replace(desk, opened=opened, others=(*desk.others, added))
    return opened.to_json()


def chat(question: Mapping[str, Any], say: Say, is_over: IsOver) -> dict[str, Any]:
    """One side's answer. Raises SftuiError."""
    desk = _desk()
    waiting, told = "", 0.0

    def hear(text: str) -> None:
        nonlocal waiting, told
        waiting += text
        if time.monotonic() - told >= _TELL_SECONDS:
            say({"text": waiting})
            waiting, told = "", time.monotonic()

    loaded = desk.holding(question["side"])
    with loaded.answering(question["side"]) as model:
        said = generating.answer(
            model, loaded.tokenizer, question["turns"], Sampling(**question["sampling"]), hear, is_over
        )
    if waiting:
        say({"text": waiting})
    return asdict(said)


def measure(question: Mapping[str, Any], say: Say, is_over: IsOver) -> dict[str, Any]:
    """How each side does on held-out rows. Raises SftuiError where there are none."""
    desk = _desk()
    held_out = desk.data.held_out if desk.data is not None else None
    if held_out is None or not len(held_out):
        raise SftuiError(
            "There are no held-out rows",
            "The run held none out, or they are gone, so that nothing can be measured on rows it did not learn.",
            "Set test_split_size or sftui.held_out_file in the next run.",
        )
    rows = [held_out[number] for number in range(min(question["rows"], len(held_out)))]
    prompts = desk.opened.prompts[: question["rows"]]
    return {side: asdict(_measured(desk, side, rows, prompts, say, is_over)) for side in question["sides"]}


def _measured(
    desk: _Desk, side: str, rows: Sequence[dict[str, Any]], prompts: Sequence[Any], say: Say, is_over: IsOver
) -> Measured:
    told = 0.0

    def tell(what: str) -> measuring.Tell:
        def progress(done: int, total: int) -> None:
            nonlocal told
            if done == total or time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                say(asdict(MeasureProgress(side, what, done, total)))

        return progress

    loaded = desk.holding(side)
    if loaded is not desk.loaded and not another.reads_alike(desk.loaded, loaded):
        rows = ()
    with loaded.answering(side) as model:
        loss = measuring.measure_loss(model, rows, tell("perplexity"), is_over)
        answers = measuring.measure_answers(model, loaded.tokenizer, prompts, tell("answers"), is_over)
    return measuring.measured(loss, answers, whole=loss[0] == len(rows) and answers[0] == len(prompts))


def _phases(say: Say) -> Callable[[str, int, int], None]:
    """Tells how far the loading is, not too often."""
    told, last = 0.0, ""

    def hear(name: str, done: int, total: int) -> None:
        nonlocal told, last
        if name != last or done == total or time.monotonic() - told >= _TELL_SECONDS:
            told, last = time.monotonic(), name
            say(asdict(Phase(name, done, total)))

    return hear


def _checks(is_over: IsOver) -> Callable[[], None]:
    def check() -> None:
        if is_over():
            raise SftuiError("Not loaded", "The loading was stopped.")

    return check


def _desk() -> _Desk:
    if _open is None:
        raise SftuiError("Nothing is open", "No result is loaded.", "Open one first.")
    return _open
