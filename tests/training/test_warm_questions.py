"""The warm runner answers questions while it waits, and obeys at once when a run comes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import paths
from core.data.check import check
from core.data.request import files_request
from core.data.seen_row import SeenRow
from core.data.token_statistics import TokenCounts
from core.data.tokenizing_options import TokenizingOptions
from core.errors import SftuiError
from core.models.inventory_file import Inventory, cached_inventory
from core.runs import events
from core.runs.launch import WarmRunner
from core.training import libraries
from core.training.questions import Answerer
from tests.training.runs import events_of, make_run, wait_for


@pytest.fixture
def warm() -> Iterator[WarmRunner]:
    """A warm runner that ends with the test."""
    runner = WarmRunner.start()
    yield runner
    runner.close()
    runner.wait(timeout=120)


def question(folder: Path) -> dict[str, str]:
    return {"ask": "inventory", "folder": str(folder), "auto_class": "AutoModelForCausalLM"}


def test_it_answers_in_order_and_then_takes_the_run(
    tiny_model: Path, rows: Path, warm: WarmRunner, tmp_path: Path
) -> None:
    inventory = Inventory.from_json(warm.ask(question(tiny_model)))
    assert inventory == cached_inventory(tiny_model, "AutoModelForCausalLM")
    assert inventory.model_type == "llama"
    assert any(parameter.quantizable and parameter.adaptable for parameter in inventory.parameters)

    with pytest.raises(SftuiError, match="Not a model folder"):
        warm.ask(question(tmp_path))
    with pytest.raises(SftuiError, match="no answer to 'the way'"):
        warm.ask({"ask": "the way"})
    with pytest.raises(SftuiError, match="busy"):
        warm.ask(question(tiny_model), timeout=0)
    assert warm.ask(question(tiny_model))["model_type"] == "llama"

    folder = make_run(tiny_model, rows)
    assert warm.run(folder)
    assert not warm.is_idle
    with pytest.raises(SftuiError, match="Nobody can answer"):
        warm.ask(question(tiny_model))
    state = wait_for(folder, lambda state: state.outcome is not None)
    assert isinstance(state.outcome, events.RunFinished)
    assert warm.wait(timeout=60) == 0


def test_it_shows_rows_and_counts_their_tokens(tiny_model: Path, rows: Path, warm: WarmRunner) -> None:
    facts = check(files_request(rows))
    options = TokenizingOptions("assistant").to_json()
    asked = {"store": str(facts.store), "folder": str(tiny_model), "options": options}

    seen = SeenRow.from_json(warm.ask({"ask": "row", "index": 3, **asked}))
    counts = TokenCounts(facts.rows)
    while (start := counts.next_unknown()) is not None:
        counts.add(warm.ask({"ask": "lengths", "start": start, "stop": start + 15, **asked}))

    assert counts.lengths[3] == seen.tokens == len(seen.texts)
    assert counts.trained[3] == seen.trained.count(True) > 0
    assert seen.trained.index(True) == counts.first[3]
    assert seen.texts[seen.ends[-1]] == "<|im_end|>"
    with pytest.raises(SftuiError, match="index"):
        warm.ask({"ask": "row", "index": 0, **asked, "store": str(tiny_model)})


def test_a_library_that_cannot_be_imported_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(libraries, "import_libraries", broken)
    reading, writing = os.pipe()
    answerer = Answerer(writing)
    answerer.start()
    with os.fdopen(reading, "rb") as answers:
        for number in (1, 2):
            answerer.ask({"id": number, "ask": "row"})
            told = json.loads(answers.readline())
            assert told["id"] == number
            assert "libcudart" in told["error"]["message"]
        answerer.stop()


def test_a_run_is_obeyed_while_a_question_waits_for_the_imports(tiny_model: Path, rows: Path, warm: WarmRunner) -> None:
    told: list[BaseException] = []

    def ask() -> None:
        try:
            warm.ask(question(tiny_model))
        except SftuiError as error:
            told.append(error)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    folder = make_run(tiny_model, rows)
    assert warm.run(folder)
    for thread in asking:
        thread.join(timeout=5)
        assert not thread.is_alive(), "nobody waits for what a run has taken the place of"
    assert len(told) == 3
    wait_for(folder, lambda state: state.started_at is not None)
    assert folder.is_alive()
    assert isinstance(wait_for(folder, lambda state: state.outcome is not None).outcome, events.RunFinished)


def test_its_death_is_told_to_whoever_waits(tiny_model: Path, warm: WarmRunner) -> None:
    threading.Timer(0.5, os.kill, (warm._process.pid, signal.SIGKILL)).start()
    with pytest.raises(SftuiError, match="Nobody can answer"):
        warm.ask(question(tiny_model))
    warm.wait(timeout=60)
    with pytest.raises(SftuiError, match="Nobody can answer"):
        warm.ask(question(tiny_model))
    assert not warm.is_idle


def test_a_run_whose_app_died_with_a_question_open_goes_on(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows)
    script = (
        "import os, pathlib, signal, sys, threading, time\n"
        "from core.runs.folder import RunFolder\n"
        "from core.runs.launch import WarmRunner\n"
        "warm = WarmRunner.start()\n"
        "asked = {'ask': 'inventory', 'folder': sys.argv[2], 'auto_class': 'AutoModelForCausalLM'}\n"
        "threading.Thread(target=warm.ask, args=(asked,), daemon=True).start()\n"
        "while not warm._waiting: time.sleep(0.01)\n"
        "assert warm.run(RunFolder(pathlib.Path(sys.argv[1])))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder.path), str(tiny_model)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert isinstance(wait_for(folder, lambda state: state.outcome is not None).outcome, events.RunFinished)
    assert [event.warm for event in events_of(folder) if isinstance(event, events.RunStarted)] == [True]


def test_what_libraries_print_is_in_the_log_and_no_answer() -> None:
    script = (
        "import os, sys\n"
        "from core.training import questions, warm\n"
        "def answer(question):\n"
        "    print('chatter')\n"
        "    os.write(1, b'noise from C\\n')\n"
        "    return {'said': question['ask']}\n"
        "questions.answer = answer\n"
        "sys.exit(warm.main())\n"
    )
    done = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.stdin is not None and done.stdout is not None and done.stderr is not None
    done.stdin.write(b'{"id": 7, "ask": "anything"}\n')
    done.stdin.flush()
    assert done.stdout.readline() == b'{"id": 7, "answer": {"said": "anything"}}\n'
    done.stdin.close()
    assert done.stdout.read() == b""
    log = done.stderr.read()
    assert b"chatter" in log
    assert b"noise from C" in log
    assert done.wait(timeout=60) == 0
    done.stdout.close()
    done.stderr.close()


def test_the_log_of_the_warm_runner_is_where_the_error_says(tiny_model: Path, warm: WarmRunner) -> None:
    os.kill(warm._process.pid, signal.SIGKILL)
    warm.wait(timeout=60)
    with pytest.raises(SftuiError) as raised:
        warm.ask(question(tiny_model))
    assert str(paths.state_home() / "warm.log") in raised.value.message
    assert (paths.state_home() / "warm.log").exists()


def test_a_plan_in_words_is_exact_when_it_may_take_seconds(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"model_name_or_path: {tiny_model}\ndatasets: [{{path: json, data_files: {rows}}}]\nuse_peft: true\n"
    )
    said = []
    for options in ([], ["--exact"], []):
        command = [sys.executable, "-m", "core.cli", "plan", str(spec), "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout)["memory"]["basis"]["base_weights"])
    assert ["exact" in basis for basis in said] == [False, True, True]
