"""The app on a real terminal, full of hostile words: every command that reaches the terminal is Textual's own."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from core.runs import events
from core.runs.events import Answer, Event
from core.runs.folder import RunFolder
from core.runs.tags import write_tags
from core.text import safe
from tests.model_files import write_model
from tests.nvml import build_stub
from tests.safety.hostile_text import COUNT, ESCAPE, foreign_sequences, hostile_texts, plain_texts
from tests.terminal.terminal import Terminal
from tests.tui.helpers import begin, steps, write_run
from tests.tui.setup_helpers import make_model

WIDE, TALL = 240, 400
CTRL_Q, ENTER, ESCAPE_KEY, PAGE_DOWN = "\x11", "\r", "\x1b", "\x1b[6~"
AT_ONCE = 20
SEEN = "the-last-of-them"


def shown(
    *command: str,
    words: Sequence[str] = (SEEN,),
    then: Sequence[tuple[str, str]] = (),
    ends: int | None = None,
    lines: int = TALL,
) -> str:
    """All that the app wrote until these words were there; `then` are keys, with words to wait for after each.

    `ends` is the exit status of an app that ends by itself.
    """
    with Terminal(*command, columns=WIDE, lines=lines) as terminal:
        if ends is None:
            terminal.wait_until(lambda: all(word in terminal.output for word in words), str(words))
            for keys, words_after in then:
                press(terminal, keys, words_after)
            terminal.type(CTRL_Q)
        assert terminal.wait() == (ends or 0)
    return terminal.output


def press(terminal: Terminal, keys: str, words: str) -> None:
    """Press keys, and wait for these words to come."""
    written = len(terminal.output)
    terminal.type(keys)
    terminal.wait_until(lambda: words in terminal.output[written:], words)


def page_through(terminal: Terminal, last: str) -> None:
    """Page down until these words are seen."""
    begun = written = len(terminal.output)
    while last not in terminal.output[begun:]:
        press(terminal, PAGE_DOWN, "note ")
        # The next key goes to a page that is there, or it would never be.
        while written < (written := len(terminal.output)):
            terminal.read()


def hostile_run() -> RunFolder:
    """A run whose every word is foreign."""
    texts = itertools.cycle(hostile_texts())
    answers = tuple(Answer(next(texts), next(texts), next(texts)) for _ in range(100))
    told: list[Event] = [
        events.RunStarted(next(texts), next(texts), next(texts), 1, next(texts), warm=False),
        *begin("x")[1:],
        *(events.ChoiceMade(next(texts) + str(number), next(texts), next(texts)) for number in range(250)),
        *(events.ProblemNoticed(next(texts), next(texts)) for _ in range(60)),
        events.ModelLoaded(next(texts), next(texts), 1, 1, next(texts), next(texts), next(texts)),
        events.ModelAdapted(1, 1, (next(texts),)),
        events.PhaseStarted("training", next(texts)),
        *steps(1, 9),
        events.CheckpointCommitted(9, next(texts), 1, 1.0),
        events.SamplesAnswered("base", 0, answers),
        events.SamplesAnswered("tuned", 9, answers),
        events.RunFailed(next(texts), next(texts) + SEEN, next(texts), next(texts), next(texts), 9, 1.0),
    ]
    folder = write_run("run-aaaa", told)
    lines = [text.encode("utf-8", "surrogatepass") for text in itertools.islice(texts, 1000)]
    folder.log_file.write_bytes(b"\n".join([*lines, b"the-end-of-the-log", b""]))
    return folder


def test_ten_thousand_texts_are_paged_through_on_the_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hostile_run()
    texts = hostile_texts()
    with folder.notes_file.open("w") as file:
        for at in range(0, COUNT, AT_ONCE):
            text = f"note {at}: " + " ".join(texts[at : at + AT_ONCE])
            file.write(json.dumps({"time": 1.0, "text": text}) + "\n")
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    # So small that one view is shown at a time.
    with Terminal("tui_app", "attach", "run-aaaa", columns=99, lines=100) as terminal:
        terminal.wait_until(lambda: SEEN in terminal.output, SEEN)
        press(terminal, "v", "[Machine]")
        press(terminal, "v", "[Answers]")
        # The newest first.
        press(terminal, "v", f"note {COUNT - AT_ONCE}:")
        page_through(terminal, "note 0:")
        press(terminal, "v", "the-end-of-the-log")
        press(terminal, "v", "[Events]")
        terminal.type(CTRL_Q)
        assert terminal.wait() == 0
    assert foreign_sequences(terminal.output) == []
    written = without_space(ESCAPE.sub("", terminal.output))
    seen = sum(without_space(safe(text)) in written for text in texts)
    assert seen > 0.99 * COUNT, "but for those that the end of a page cuts in two, and halves that a file makes whole"


def without_space(text: str) -> str:
    """A text as if it had never been wrapped in a frame."""
    return re.sub(r"[│\s]", "", text)


@pytest.fixture
def hostile_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU and three processes on it, all of them with hostile names."""
    names = ("\x1b]0;6660\x07", "\x9b6660m[@click=app.bell]\u202e", "\x1b[6660m\x07\r\n6660")
    processes = [subprocess.Popen([name, "3600"], executable="/bin/sleep") for name in names]
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_stub(tmp_path)))
    monkeypatch.setenv("STUB_NVML_NAME", "\x1b]0;6660\x07\x1b[6660m")
    monkeypatch.setenv("STUB_NVML_PROCESSES", ",".join(f"{process.pid}:7" for process in processes))
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("hostile_gpus")
def test_the_list_of_runs_and_runs_beside_each_other_with_hostile_names(tmp_path: Path) -> None:
    texts = plain_texts(1000)
    for number, text in enumerate(texts[:100]):
        name = f"{number}-{text.replace('/', '')}"
        model, method = texts[number + 100], texts[number + 300]
        folder = write_run(name, [events.RunStarted(name, model, method, 1, text, warm=False)])
        write_tags(folder, ("\x1b[6660m", *texts[number : number + 3]))
        # What differs between runs stands beside each other.
        options = {text: texts[at] for at, text in enumerate(texts[200:215], start=number)}
        folder.spec_file.write_text(json.dumps({**options, "sftui": options}))
        (folder.path / "environment.json").write_text(json.dumps({**options, "packages": options}))
    write_tags(write_run(SEEN, []), ("\x1b[6660m",))
    keys = [("T", "Words to find it by"), (ESCAPE_KEY, SEEN)]
    keys += [(" ", "1 marked"), (" ", "2 marked"), ("v", "Other environment")]
    output = shown("tui_app", words=[SEEN, "7.34 MB  ␛"], then=keys, lines=120)
    assert foreign_sequences(output) == []
    assert output.count("6660") > 100
    assert "␛]0;6660␇" in output


def test_a_result_is_asked_for_hostile_answers(tmp_path: Path) -> None:
    told = [*begin("x"), *steps(1, 3), events.RunFinished(3, "adapter", 9.0)]
    folder = write_run("\x1b]0;6660\x07\x9b6660m", told)
    texts = [text.encode("utf-8", "replace").decode() for text in hostile_texts()[:500]]
    words = json.dumps({"run": str(folder.path), "answers": texts})
    then = [("a", "Held-out prompts"), (ENTER, "the end of an answer"), ("m", "exactly right")]
    output = shown("tests.safety.shown", "monitor", words, words=["Ask it"], then=then)
    assert foreign_sequences(output) == []
    assert output.count("6660") > 100


def test_models_with_hostile_names_and_cards(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for number, text in enumerate(plain_texts(40)):
        model = make_model(folder / f"{number}-{text.replace('/', '')}", license=text, dtype=text)
        (model / "README.md").write_text(f"---\nlicense: {json.dumps(text)}\n---\n# {text}")
        write_model(folder / f"z{number}-{text.replace('/', '')}", model_type=text, architectures=[text])
    draft = {"model_name_or_path": str(next(folder.glob("0-*"))), "sftui": {"device": "\x1b[6660m"}}
    output = shown("tests.safety.shown", "model", json.dumps({"draft": draft}), words=["Its weights"])
    assert foreign_sequences(output) == []


@pytest.mark.parametrize("step", ["data", "review"])
def test_a_set_up_of_hostile_rows_columns_and_options(step: str, tmp_path: Path) -> None:
    texts = iter(plain_texts(400))
    file = tmp_path / f"{next(texts).replace('/', '')}-6660\x1b[6660m.jsonl"
    rows = [{"prompt": SEEN + next(texts), "completion": next(texts), next(texts): next(texts)} for _ in range(60)]
    file.write_text("\n".join([*map(json.dumps, rows), *texts]))
    draft = {
        "model_name_or_path": str(make_model(tmp_path / "model\x1b]0;6660\x07")),
        "datasets": [{"path": str(file)}],
        "sftui": {"name": f"{SEEN}\x1b[6660m\u202e", "sample_prompts": list(plain_texts(20))},
    }
    output = shown("tests.safety.shown", step, json.dumps({"draft": draft}))
    assert foreign_sequences(output) == []


def test_errors_and_messages_with_hostile_words() -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in hostile_texts()[:30]]
    output = shown("tests.safety.shown", "runs", json.dumps({"draft": {}, "errors": [*texts, SEEN]}))
    assert foreign_sequences(output) == []


def test_a_defect_ends_the_app_in_words_and_shows_no_variable() -> None:
    words = {"draft": {}, "defect": "\x1b]0;6660\x07\x9b6660m\u202e" + SEEN, "secret": "hf_secret"}
    output = shown("tests.safety.shown", "runs", json.dumps(words), ends=1)
    assert foreign_sequences(output) == []
    assert "A defect in sftui" in output
    assert SEEN in output
    assert "Its traceback is in" in output
    assert "hf_secret" not in output
