"""The app on a real terminal, full of hostile words: every command that reaches the terminal is Textual's own."""

import itertools
import json
from pathlib import Path

import pytest

from core.runs import events
from core.runs.events import Answer, Event
from core.runs.folder import RunFolder
from tests.model_files import write_model
from tests.safety.hostile_text import foreign_sequences, hostile_texts, plain_texts
from tests.terminal.terminal import Terminal
from tests.tui.helpers import begin, steps, write_run
from tests.tui.setup_helpers import make_model

TALL = {"columns": 200, "lines": 400}
CTRL_Q = "\x11"
SEEN = "the-last-of-them"


def shown(*command: str, words: str = SEEN, then: tuple[str, str] | None = None, ends: int | None = None) -> str:
    """All that the app wrote until these words were there; `then` is a key, with words to wait for.

    `ends` is the exit status of an app that ends by itself.
    """
    with Terminal(*command, **TALL) as terminal:
        if ends is None:
            terminal.wait_until(lambda: words in terminal.output, words)
            if then is not None:
                terminal.type(then[0])
                terminal.wait_until(lambda: then[1] in terminal.output, then[1])
            terminal.type(CTRL_Q)
        assert terminal.wait() == (ends or 0)
    return terminal.output


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


def test_the_monitor_of_a_hostile_run(tmp_path: Path) -> None:
    hostile_run()
    output = shown("tui_app", "attach", "run-aaaa", then=("l", "the-end-of-the-log"))
    assert foreign_sequences(output) == []
    assert output.count("6660") > 300, "the words themselves are shown"


def test_the_list_of_runs_with_hostile_names(tmp_path: Path) -> None:
    for number, text in enumerate(plain_texts(200)):
        name = f"{number}-{text.replace('/', '')}"
        write_run(name, [events.RunStarted(name, text, text, 1, text, warm=False)])
    write_run(SEEN, [])
    output = shown("tui_app")
    assert foreign_sequences(output) == []
    assert "6660" in output


def test_models_with_hostile_names_and_cards(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for number, text in enumerate(plain_texts(40)):
        model = make_model(folder / f"{number}-{text.replace('/', '')}", license=text, dtype=text)
        (model / "README.md").write_text(f"---\nlicense: {json.dumps(text)}\n---\n# {text}")
        write_model(folder / f"z{number}-{text.replace('/', '')}", model_type=text, architectures=[text])
    draft = {"model_name_or_path": str(next(folder.glob("0-*"))), "sftui": {"device": "\x1b[6660m"}}
    output = shown("tests.safety.shown", "model", json.dumps({"draft": draft}), words="Its weights")
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
