"""Step 2: the rows are named, read, shown token by token, counted and judged."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Static

from core.data import check_process
from core.data.check import StoppedError
from core.data.facts import Progress
from core.errors import SftuiError
from core.runs import events
from core.runs.folder import create_run
from core.runs.journal import JournalWriter
from core.runs.launch import NoAnswerError
from core.spec.build import build_spec
from tests.tui.setup_helpers import field, go_to, make_model, make_rows, opened, seen, sees, told, types, wait_for

pytest_plugins = ["tests.tui.setup_helpers"]


@dataclass
class FakeWarm:
    """A warm runner: the answer of each row is trained; row n, from 0, has 10 + 10 n tokens, half of them trained."""

    problem: SftuiError | None = None
    is_idle: bool = True
    refuses: tuple[int, ...] = ()
    end_is_trained: bool = True
    asked: list[Mapping[str, Any]] = field_of(default_factory=list)
    gate: threading.Event = field_of(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def ask(self, question: Mapping[str, Any], timeout: float = 0.0) -> dict[str, Any]:
        """Answer."""
        self.asked.append(question)
        if question["ask"] in ("inventory", "layers", "simulate"):
            raise NoAnswerError("Nobody can answer now", "It is a test.")
        if self.problem is not None:
            raise self.problem
        if question["ask"] == "row":
            return self._row(question["index"])
        self.gate.wait(30)
        if not self.is_idle:
            raise NoAnswerError("Nobody can answer now", "It has a run.")
        start, stop = question["start"], min(question["stop"], question["start"] + 500)
        rows = range(start, stop)
        return {
            "start": start,
            "stop": stop,
            "lengths": [0 if row in self.refuses else 10 + 10 * row for row in rows],
            "trained": [0 if row == 7 else 5 + 5 * row for row in rows],
            "first": [0xFFFFFFFF if row == 7 else 5 + 5 * row for row in rows],
            "last": [9 + 10 * row for row in rows],
            "refused": [
                [row, "template_refuses", "Two user turns.", "Mend it.", "/a/rows.jsonl", row + 1]
                for row in rows
                if row in self.refuses
            ],
        }

    def _row(self, index: int) -> dict[str, Any]:
        texts = ["<s>", "user", "\n", f" Row {index + 1}", "<end>", "assistant", " yes", "<end>", *[" and"] * 4]
        return {
            "texts": texts,
            "trained": [0, 0, 0, 0, 0, 0, 1, int(self.end_is_trained), 0, 0, 0, 0],
            "special": [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0],
            "ends": [4, 7],
            "tokens": len(texts),
            "refused": None,
            "way": "computed",
            "choices": [["bos_token", "once", "the template writes it"]],
            "notices": [["No pad token", "The end token pads rows."]],
            "problems": [],
        }

    def close(self) -> None:
        """End."""


def spec_of(home: Path, rows: int = 12, **values: Any) -> dict[str, Any]:
    """A model and a file of rows."""
    model, file = make_model(home / "model"), make_rows(home / "rows.jsonl", rows)
    return {"model_name_or_path": str(model), "datasets": [{"path": str(file)}], **values}


async def test_a_typed_path_shows_its_rows_and_arrows_go_through_them(home: Path) -> None:
    file = make_rows(home / "rows.jsonl")
    async with opened("data") as (app, pilot):
        assert "Name a file, a folder or a dataset." in told(app, "#facts")
        await types(pilot, file.name)
        await wait_for(pilot, lambda: app.known.data is not None)
        await sees(pilot, "Where is parcel 1?")
        assert told(app, "#facts") == "12 rows, no problems OpenAI messages: conversations"
        assert "Taken for OpenAI messages" in told(app, "#option-datasets .note"), "and why"
        await pilot.press("enter", "right", "right")
        await sees(pilot, "Where is parcel 3?")
        await pilot.press("left")
        await sees(pilot, "Where is parcel 2?")
        assert "rows.jsonl:2" in seen(app)
        await pilot.press("enter")
        await sees(pilot, "[3 Precision")


async def test_several_sources_of_several_formats_are_separated_by_commas(home: Path) -> None:
    make_rows(home / "a.jsonl", 3)
    (home / "more").mkdir()
    (home / "more" / "b.jsonl.gz").write_bytes(gzip.compress(make_rows(home / "b.jsonl", 4).read_bytes()))
    async with opened("data") as (app, pilot):
        await types(pilot, "a.jsonl, more")
        await wait_for(pilot, lambda: app.known.data is not None and app.known.data.rows == 7)
        assert app.known.values["datasets"] == [{"path": "a.jsonl"}, {"path": "more"}]
        assert field(app, "datasets").value == "a.jsonl, more", "what was typed is left as it was typed"
        await wait_for(pilot, lambda: "more: 4 rows" in told(app, "#option-datasets .note"))


async def test_p_goes_to_the_rows_that_cannot_be_used_and_b_leaves_them_out(home: Path) -> None:
    file = make_rows(home / "rows.jsonl", 30, bad={4: '{"messages": []}', 9: "{"})
    async with opened("data", {"datasets": [{"path": str(file)}]}, size=(80, 24)) as (app, pilot):
        await pilot.press("p")
        await wait_for(pilot, lambda: app.focused is not None and app.focused.id == "problems")
        problems = told(app, "#problem-list")
        assert "rows.jsonl:4 `messages` is empty." in problems
        assert "rows.jsonl:9:2 Not JSON" in problems
        assert "2 problems: 1 × empty, 1 × not JSON" in problems
        assert app.known.data is not None and app.known.data.report is not None
        assert str(app.known.data.report) in problems.replace(" ", ""), "where all of them are"
        assert "28 rows, 2 problems (p)" in told(app, "#facts")
        assert "✗ 2 bad rows stop the run" in told(app, "#facts")
        assert not app.known.done("data")
        await pilot.press("b")
        await wait_for(pilot, lambda: "! 2 bad rows left out of the run" in told(app, "#facts"))
        assert app.known.values["sftui"] == {"bad_rows": "skip"}
        assert app.known.done("data")
        await pilot.press("b", "p")
        await sees(pilot, "✗ 2 bad rows stop the run")
        await sees(pilot, "[Row]")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no rows"),
        (bytes(range(256)) * 8, "not text in UTF-8"),
        (b'{"messages": [\n', "Not JSON"),
    ],
)
async def test_a_wrong_file_says_what_it_is(home: Path, content: bytes, words: str) -> None:
    (home / "wrong.jsonl").write_bytes(content)
    async with opened("data", size=(80, 24)) as (app, pilot):
        await types(pilot, "wrong.jsonl")
        await wait_for(pilot, lambda: app.known.data is not None)
        await wait_for(pilot, lambda: words in told(app, "#option-datasets .note"))
        assert "✗ not recognised" in told(app, "#facts")
        await pilot.press("enter")
        shown_then = "-at-problems" if content else "-at-row"
        await wait_for(pilot, lambda: app.screen.has_class(shown_then))


async def test_a_missing_file_says_so_under_its_field(home: Path) -> None:
    async with opened("data") as (app, pilot):
        await types(pilot, "/nowhere.jsonl")
        await wait_for(pilot, lambda: app.known.data_problem is not None)
        await sees(pilot, "✗ No such data file")


class SlowProcess:
    """A pass that tells how far it is and then waits until it is cancelled."""

    def __init__(self, request: object) -> None:
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[Progress]:
        yield Progress(34_000_000, 120_000_000, 210_400, 3, 61_000_000.0)
        self._cancelled.wait(30)

    def facts(self) -> Any:
        """There are none."""
        raise StoppedError

    def cancel(self) -> None:
        """Stop waiting."""
        self._cancelled.set()


async def test_reading_tells_how_far_it_is_and_is_stopped_by_a_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = check_process.CheckProcess
    monkeypatch.setattr(check_process, "CheckProcess", SlowProcess)
    make_rows(home / "rows.jsonl")
    async with opened("data", size=(80, 24)) as (app, pilot):
        await types(pilot, "rows.jsonl")
        await sees(pilot, "Reading 34.0 MB of 120 MB, 210,400 rows, 3 problems, 61.0 MB/s")
        await go_to(pilot, "max_length")
        await pilot.press("end", "0")
        await wait_for(pilot, lambda: app.known.values.get("max_length") == 10240)
        assert "Reading 34.0 MB" in told(app, "#facts"), "another option does not begin it again"
        await pilot.press("ctrl+t")
        await wait_for(pilot, lambda: "✗ The reading was stopped ^r reads" in told(app, "#facts"))
        monkeypatch.setattr(check_process, "CheckProcess", real)
        await pilot.press("ctrl+r")
        await sees(pilot, "12 rows, no problems")


async def test_what_is_learnt_is_one_choice(home: Path) -> None:
    file = make_rows(home / "rows.jsonl")
    async with opened("data", {"datasets": [{"path": str(file)}]}) as (app, pilot):
        await sees(pilot, "+ [Where is parcel 1?]")
        await go_to(pilot, "assistant_only_loss")
        assert "( ) the completion" not in seen(app), "there is none"
        await pilot.press("left")
        await wait_for(pilot, lambda: app.known.values.get("assistant_only_loss") is True)
        await wait_for(pilot, lambda: "+ [Where" not in seen(app))
        assert "+ [Parcel 1 is on its way.]" in seen(app)
        await pilot.press("left")
        await wait_for(pilot, lambda: "assistant_only_loss" not in app.known.values)


async def test_prompts_can_be_learnt_with_their_completions(home: Path) -> None:
    file = home / "rows.csv"
    file.write_text("question,answer\nWhy?,Because.\n")
    async with opened("data", {"datasets": [{"path": str(file)}]}) as (app, pilot):
        await sees(pilot, "+ [Because.]")
        assert "+ [Why?]" not in seen(app)
        await go_to(pilot, "assistant_only_loss")
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.values.get("completion_only_loss") is False)
        await sees(pilot, "+ [Why?]")
        await pilot.press("left", "left")
        await wait_for(pilot, lambda: app.known.values.get("assistant_only_loss") is True)
        assert "completion_only_loss" not in app.known.values


async def test_tokens_are_shown_as_soon_as_somebody_can_tell_them(home: Path) -> None:
    async with opened("data", spec_of(home), size=(80, 24)) as (app, pilot):
        await pilot.press("r")
        await sees(pilot, "Where is parcel 1?")
        assert "No tokens now" in seen(app)
        app.warm = FakeWarm()  # type: ignore[assignment]
        await sees(pilot, "12 tokens, 2 trained, not cut")
        assert "<s>user⏎" in seen(app)
        assert "[ yes<end>]" in seen(app)
        assert "✓ learnt with the end of its turn, <end>" in seen(app)
        await pilot.press("t")
        await sees(pilot, "<s>│user│⏎")
        await pilot.press("v")
        await sees(pilot, "Where is parcel 1?")
        await pilot.press("v", "right")
        await sees(pilot, " Row 2")


async def test_an_end_that_is_not_learnt_is_said_in_words(home: Path) -> None:
    async with opened("data", spec_of(home), size=(80, 24)) as (app, pilot):
        app.warm = FakeWarm(end_is_trained=False)  # type: ignore[assignment]
        await pilot.press("r")
        await sees(pilot, "✗ The end of turn <end> is not learnt: the model will not learn to stop.")


async def test_the_cut_moves_with_max_length(home: Path) -> None:
    async with opened("data", spec_of(home)) as (app, pilot):
        app.warm = FakeWarm()  # type: ignore[assignment]
        await sees(pilot, "not cut")
        await go_to(pilot, "max_length")
        await pilot.press("end", *["backspace"] * 4, "8")
        await sees(pilot, "12 tokens, 2 trained, 4 cut off")
        assert "cut at 8: 4 more tokens are not seen" in seen(app)
        await sees(pilot, "8.3 % at 8")
        await sees(pilot, "92 % dropped: nothing to learn")


async def test_numbers_follow_the_counting_and_the_options(home: Path) -> None:
    async with opened("data", spec_of(home, max_length=64), size=(80, 24)) as (app, pilot):
        await pilot.press("n")
        await sees(pilot, "Nobody counts now")
        app.warm = FakeWarm()  # type: ignore[assignment]
        await sees(pilot, "All 12 rows")
        await sees(pilot, "p50 60 p95 120 max 120")
        assert "780, 390 trained" not in seen(app), "row 8 has nothing trained"
        assert "780, 350 trained (45 %)" in seen(app)
        await sees(pilot, "42 % at 64")
        await sees(pilot, "8.3 % dropped")
        await pilot.press("c")
        await sees(pilot, "Row 7 of 12")
        await pilot.press("c")
        await sees(pilot, "Row 9 of 12")
        await pilot.press("l")
        await sees(pilot, "Row 12 of 12")
        await pilot.press("l")
        await sees(pilot, "Row 11 of 12")
        await pilot.press("e")
        await sees(pilot, "Row 8 of 12")


async def test_rows_that_the_template_refuses_stop_the_run_before_its_start(home: Path) -> None:
    async with opened("data", spec_of(home), size=(80, 24)) as (app, pilot):
        app.warm = FakeWarm(refuses=(2, 3))  # type: ignore[assignment]
        # Row 8 has nothing to learn from.
        await wait_for(pilot, lambda: "✗ 3 bad rows stop the run" in told(app, "#facts"))
        assert not app.known.done("data")
        note = told(app, "#option-datasets .note")
        assert "2 rows cannot be tokenized; the first: /a/rows.jsonl:3: Two user turns." in note
        assert "1 row has nothing to learn from" in note
        await pilot.press("p")
        await sees(pilot, "✗ rows.jsonl:4 Two user turns. Mend it.")
        await pilot.press("n", "e")
        await sees(pilot, "Row 3 of 12")
        await pilot.press("b")
        await wait_for(pilot, lambda: "! 3 bad rows left out of the run" in told(app, "#facts"))
        assert app.known.done("data")


async def test_columns_named_for_one_file_are_forgotten_with_another(home: Path) -> None:
    (home / "odd.csv").write_text("frage,antwort\nWarum?,Darum.\n")
    make_rows(home / "rows.jsonl")
    columns = {"columns": {"user": "frage", "assistant": "antwort"}, "bad_rows": "skip"}
    async with opened("data", {"datasets": [{"path": "odd.csv"}], "sftui": columns}) as (app, pilot):
        await sees(pilot, "Warum?")
        await go_to(pilot, "datasets")
        await pilot.press("end", *["backspace"] * 7)
        await types(pilot, "rows.jsonl")
        await sees(pilot, "Where is parcel 1?")
        await wait_for(pilot, lambda: app.known.values["sftui"] == {"bad_rows": "skip"})
        await sees(pilot, "frage, antwort: these rows have no such columns")
        assert "12 rows, no problems" in told(app, "#facts")


async def test_the_rate_of_an_earlier_run_tells_how_long_it_takes(home: Path) -> None:
    values = spec_of(home, max_length=64, use_peft=True)
    async with opened("data", values, size=(80, 24)) as (app, pilot):
        app.warm = FakeWarm()  # type: ignore[assignment]
        await pilot.press("n")
        await sees(pilot, "known after the first steps of a run")
    started = events.RunStarted("earlier", str(home / "model"), "lora", 1, "1", warm=False)
    loaded = events.ModelLoaded("AutoModelForCausalLM", "llama", 1, 1, "float32", "cpu", "sdpa")
    steps = [events.StepCompleted(n, 0.1, 1.0, 1e-4, 1.0, 50, 50.0 if n > 2 else 1.0, 1.0) for n in range(1, 7)]
    folder = create_run(build_spec(values))
    journal = JournalWriter(folder.journal_file)
    happened: list[events.Event] = [started, loaded, *steps]
    for event in happened:
        journal.write(event)
    journal.close()
    async with opened("data", values, size=(80, 24)) as (app, pilot):
        app.warm = FakeWarm()  # type: ignore[assignment]
        await pilot.press("n")
        await sees(pilot, "for 3 epochs, at 50 tokens/s")
        # 11 rows, cut at 64: 10 + … + 60 and five times 64 (one has nothing to learn from), three times.
        await sees(pilot, f"about {round((210 + 5 * 64) * 3 / 50)} s for")


async def test_what_was_mended_in_the_tokenizer_is_said_at_the_template(home: Path) -> None:
    async with opened("data", spec_of(home)) as (app, pilot):
        app.warm = FakeWarm()  # type: ignore[assignment]
        note = "#option-chat_template_path .note"
        await wait_for(pilot, lambda: "No pad token: The end token pads rows." in told(app, note))
        lines = str(app.screen.query_one(note, Static).content).splitlines()
        assert "bos_token once: the template writes it." in lines
        assert "No pad token: The end token pads rows." in lines


async def test_a_large_file_is_counted_by_a_sample_first(home: Path) -> None:
    async with opened("data", spec_of(home, 3000)) as (app, pilot):
        warm = FakeWarm()
        app.warm = warm  # type: ignore[assignment]
        await sees(pilot, "All 3,000 rows")
        slices = [(question["start"], question["stop"]) for question in warm.asked if question["ask"] == "lengths"]
        assert slices[0] == (0, 64)
        assert slices[7] == (2936, 3000)
        assert sum(question["ask"] == "lengths" for question in warm.asked) > 8
        app.warm = None
        again = FakeWarm()
        app.warm = again  # type: ignore[assignment]
        await wait_for(pilot, lambda: app.tokens is not None and app.tokens.complete)
        assert not any(question["ask"] == "lengths" for question in again.asked), "all is known"


async def test_counting_pauses_while_a_run_has_the_runner_and_goes_on_after_it(home: Path) -> None:
    async with opened("data", spec_of(home), size=(80, 24)) as (app, pilot):
        warm = FakeWarm()
        warm.gate.clear()
        app.warm = warm  # type: ignore[assignment]
        await pilot.press("n")
        await wait_for(pilot, lambda: any(question["ask"] == "lengths" for question in warm.asked))
        warm.is_idle = False
        app.warm = None
        warm.gate.set()
        await sees(pilot, "a run has the runner")
        app.warm = FakeWarm()  # type: ignore[assignment]
        await sees(pilot, "All 12 rows")


async def test_a_tokenizer_that_cannot_be_loaded_says_so(home: Path) -> None:
    async with opened("data", spec_of(home), size=(80, 24)) as (app, pilot):
        app.warm = FakeWarm(SftuiError("The tokenizer is broken", "vocab.json ends early.", "Copy it."))  # type: ignore[assignment]
        await pilot.press("r")
        await sees(pilot, "✗ The tokenizer is broken: vocab.json ends early. Copy it.")
        await pilot.press("n")
        await sees(pilot, "✗ The tokenizer is broken: vocab.json ends early. Copy it.")


async def test_g_goes_to_a_number_and_slash_to_a_text(home: Path) -> None:
    async with opened("data", spec_of(home, 300), size=(80, 24)) as (app, pilot):
        await pilot.press("g", "2", "5", "0", "enter")
        await sees(pilot, "Where is parcel 250?")
        await pilot.press("slash")
        await types(pilot, "PARCEL 77?")
        await pilot.press("enter")
        await sees(pilot, "Where is parcel 77?")
        await pilot.press("slash", "x", "escape", "right")
        await sees(pilot, "Where is parcel 78?")
        assert "[2 Data" in seen(app), "escape closed the field and nothing else"
        await pilot.press("slash")
        await types(pilot, "nowhere")
        await pilot.press("enter")
        await sees(pilot, "No row holds “nowhere”.")


async def test_a_base_model_is_offered_a_chat_template(home: Path) -> None:
    values = spec_of(home)
    model = make_model(home / "base", chat_template=False)
    vocabulary = {"a": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    values["model_name_or_path"] = str(model)
    async with opened("data", values) as (app, pilot):
        await wait_for(pilot, lambda: "✗" in told(app, "#option-chat_template_path .note"))
        await go_to(pilot, "chat_template_path")
        await wait_for(pilot, lambda: "( ) ChatML" in seen(app))
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.values.get("chat_template_path") == "chatml")
        await wait_for(
            pilot, lambda: "its tokens are in the vocabulary" in told(app, "#option-chat_template_path .note")
        )
        await pilot.press("left")
        await wait_for(pilot, lambda: "chat_template_path" not in app.known.values)


async def test_narrow_panes_are_tabs_and_keys_go_between_them(home: Path) -> None:
    async with opened("data", spec_of(home), size=(80, 24)) as (app, pilot):
        for key, tab in (("r", "[Row]"), ("n", "[Numbers]"), ("f", "[Files]")):
            await pilot.press(key)
            await sees(pilot, tab)
        assert "Numbers follow" not in seen(app)
        await pilot.press("g")
        assert field(app, "datasets").value.endswith("g"), "in the field, letters are letters"


async def test_a_wrong_length_is_kept_and_says_what_is_allowed(home: Path) -> None:
    async with opened("data") as (app, pilot):
        await go_to(pilot, "max_length")
        await pilot.press("end", "x")
        await wait_for(pilot, lambda: app.known.values.get("max_length") == "1024x")
        await wait_for(pilot, lambda: "✗ must be a whole number" in told(app, "#option-max_length .note"))
        assert "it is '1024x'" in told(app, "#option-max_length .note")
        await pilot.press("ctrl+n", "escape")
        await sees(pilot, "[2 Data")
        assert field(app, "max_length").value == "1024x"


async def test_an_empty_length_means_none_and_not_the_default(home: Path) -> None:
    async with opened("data") as (app, pilot):
        await go_to(pilot, "max_length")
        await pilot.press("end", *["backspace"] * 4)
        await wait_for(pilot, lambda: "max_length" in app.known.values and app.known.values["max_length"] is None)
        assert field(app, "max_length").value == ""


async def test_held_out_rows_are_read_and_must_fit_the_training_rows(home: Path) -> None:
    rows, held_out, other = make_rows(home / "a.jsonl"), make_rows(home / "b.jsonl", 5), home / "c.jsonl"
    other.write_text('{"text": "plain"}\n')
    values = {"datasets": [{"path": str(rows)}], "sftui": {"held_out_file": str(held_out)}}
    note = "#option-sftui-held_out_file .note"
    async with opened("data", values) as (app, pilot):
        await wait_for(pilot, lambda: told(app, note) == "5 rows to evaluate on.")
        await go_to(pilot, "sftui.held_out_file")
        await types(pilot, other.name)
        await wait_for(pilot, lambda: "✗ is in text form" in told(app, note))
        await types(pilot, "x")
        await wait_for(pilot, lambda: "✗ No such data file" in told(app, note))
        await pilot.press("ctrl+n", "ctrl+n", "ctrl+n")
        await sees(pilot, "[5 Review")
        await wait_for(pilot, lambda: "No such data file" in told(app, "#problems"))
        assert app.screen.query_one("#start").disabled


async def test_hostile_rows_are_only_text(home: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "\x1b]0;x\x07 [/red]"}, {"role": "assistant", "content": "ok\u202e"}]
    }
    file = home / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    async with opened("data", {"datasets": [{"path": str(file)}]}) as (app, pilot):
        await sees(pilot, "␛]0;x␇ [/red]")
        assert "ok‹U+202E›" in seen(app)
        assert "\x1b" not in seen(app)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_rows_are_reached_at_every_size(home: Path, size: tuple[int, int]) -> None:
    file = make_rows(home / "rows.jsonl")
    async with opened("data", {"datasets": [{"path": str(file)}]}, size=size) as (_, pilot):
        await go_to(pilot, "datasets")
        await pilot.press("enter")
        await sees(pilot, "Where is parcel 1?")
