"""The warm runner simulates beside its other answers, one at a time, and lets go of it at once."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import SftuiError
from core.memory.batch_shape import BatchShape
from core.memory.simulated import Simulation, SimulationTask, cached_simulation
from core.runs.launch import NoAnswerError, WarmRunner
from core.spec.run_spec import RunSpec
from tests.training.runs import make_run, wait_for


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, without weights, of so many layers that simulating it takes minutes."""
    folder = tmp_path_factory.mktemp("endless")
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": 259,
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2000, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def warm() -> Iterator[WarmRunner]:
    """A warm runner that ends with the test."""
    runner = WarmRunner.start()
    yield runner
    runner.close()
    runner.wait(timeout=120)


def task(folder: Path, **values: Any) -> SimulationTask:
    spec = RunSpec.model_validate(
        {"model_name_or_path": str(folder), "datasets": [{"path": "rows"}], "use_peft": True, **values}
    )
    return SimulationTask(spec, folder, "AutoModelForCausalLM", "bfloat16", True, BatchShape(1, 128, 128, packed=False))


def children(warm: WarmRunner) -> list[psutil.Process]:
    """The processes in which the warm runner simulates."""
    return psutil.Process(warm._process.pid).children()


def wait_until_simulating(warm: WarmRunner) -> None:
    deadline = time.monotonic() + 120
    while not children(warm):
        assert time.monotonic() < deadline, "nothing is simulated"
        time.sleep(0.05)


def test_it_answers_and_keeps_the_answer(tiny_model: Path, warm: WarmRunner) -> None:
    asked = task(tiny_model)
    assert cached_simulation(asked.key) is None
    answer = Simulation.from_json(warm.ask(asked.question()))
    assert answer.peak > answer.activations > 0
    assert cached_simulation(asked.key) == answer
    # The seconds that it took say that nothing was simulated again.
    assert Simulation.from_json(warm.ask(asked.question())) == answer
    other = task(tiny_model, lora_r=64)
    assert other.key != asked.key
    assert Simulation.from_json(warm.ask(other.question())).peak > answer.peak

    with pytest.raises(SftuiError, match="state of adafactor is not known"):
        warm.ask(task(tiny_model, optim="adafactor").question())


def test_a_new_question_or_a_run_ends_the_one_before_and_others_do_not_wait(
    tiny_model: Path, rows: Path, endless: Path, warm: WarmRunner
) -> None:
    with ThreadPoolExecutor() as pool:
        long = pool.submit(warm.ask, task(endless).question())
        wait_until_simulating(warm)
        inventory = warm.ask({"ask": "inventory", "folder": str(tiny_model), "auto_class": "AutoModelForCausalLM"})
        assert inventory["model_type"] == "llama"
        assert not long.done()
        assert Simulation.from_json(warm.ask(task(tiny_model).question())).peak > 0
        with pytest.raises(SftuiError, match="No longer simulated"):
            long.result(timeout=60)

        long = pool.submit(warm.ask, task(endless).question())
        wait_until_simulating(warm)
        (child,) = children(warm)
        folder = make_run(tiny_model, rows)
        assert warm.run(folder)
        with pytest.raises(NoAnswerError):
            long.result(timeout=60)
        # It would otherwise be busy for minutes yet.
        child.wait(timeout=60)
        wait_for(folder, lambda state: state.outcome is not None)


def test_the_end_of_the_app_ends_it(endless: Path, warm: WarmRunner) -> None:
    with ThreadPoolExecutor() as pool:
        long = pool.submit(warm.ask, task(endless).question())
        wait_until_simulating(warm)
        (child,) = children(warm)
        warm.close()
        with pytest.raises(NoAnswerError):
            long.result(timeout=60)
        child.wait(timeout=60)
