"""The embedded starter through the command line, as a newcomer runs it: what it learns in one short QLoRA run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.runs.events import Event, decode


def told(lines: str) -> list[Event]:
    entries = [decode(line) for line in lines.splitlines()]
    return [entry.event for entry in entries if entry is not None]


@pytest.mark.slow
def test_the_demo_halves_the_held_out_loss_and_answers_held_out_prompts(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "core.cli", "demo", "--headless", "--json"],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
        cwd=tmp_path,
    )
    assert demo.returncode == 0, demo.stderr
    heard = told(demo.stdout)

    def only(kind: type[Any]) -> Any:
        return next(event for event in heard if isinstance(event, kind))

    finished, started = only(events.RunFinished), only(events.RunStarted)
    assert started.method == "qlora"
    evaluations = [event for event in heard if isinstance(event, events.EvaluationCompleted)]
    assert evaluations[0].step == 0, "the base is measured before the first step"
    assert evaluations[-1].step == finished.step
    assert evaluations[-1].loss <= evaluations[0].loss / 2

    base, tuned = (event for event in heard if isinstance(event, events.SamplesAnswered))
    prompts = len(tuned.answers)
    assert prompts >= 20
    exact = {event.who: sum(answer.answer == answer.expected for answer in event.answers) for event in (base, tuned)}
    assert exact["base"] <= prompts // 10
    assert exact["tuned"] >= prompts * 8 // 10
    training = sum(event.seconds for event in heard if isinstance(event, events.StepCompleted))
    print(
        json.dumps(
            {
                "training_seconds": round(training, 1),
                "held_out_loss": [round(evaluations[0].loss, 4), round(evaluations[-1].loss, 4)],
                "exactly_right": exact,
                "of": prompts,
            }
        )
    )
