"""The training worker in this very process: what it does, tells and leaves behind."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from core.memory.plan import plan_here
from core.runs import events
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.spec.yaml_file import read_spec
from core.training.control import RunControl
from core.training.watch import LONGEST_SECONDS, Pulse
from core.training.worker import TrainingWorker
from tests.tiny import chat_rows
from tests.training.runs import make_run, write_jsonl


def train(folder: RunFolder, control: RunControl | None = None) -> list[Event]:
    told: list[Event] = []
    worker = TrainingWorker(read_spec(folder.spec_file), folder, told.append, control)
    worker.start()
    worker.join(timeout=300)
    assert not worker.is_alive(), "the worker did not end"
    assert told[-1] == worker.outcome
    assert sum(isinstance(event, events.TERMINAL) for event in told) == 1, "a run ends once"
    return told


def only(told: list[Event], kind: type[Any]) -> Any:
    found = [event for event in told if isinstance(event, kind)]
    assert len(found) == 1, f"{len(found)} of {kind.__name__}"
    return found[0]


def test_a_qlora_run_tells_each_step_and_leaves_an_adapter_that_changes_the_answers(
    tiny_model: Path, rows: Path
) -> None:
    folder = make_run(
        tiny_model,
        rows,
        load_in_4bit=True,
        use_bnb_nested_quant=True,
        assistant_only_loss=True,
        max_steps=6,
        test_split_size=0.2,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=3,
    )

    told = train(folder)

    steps = [event for event in told if isinstance(event, events.StepCompleted)]
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].loss < steps[0].loss
    for step in steps:
        assert step.seconds > 0
        assert step.tokens_per_second > 0
        assert step.learning_rate > 0
        assert step.grad_norm is not None
        assert math.isfinite(step.grad_norm)
        assert step.entropy is not None
        assert step.optimizer_seconds is not None
        assert 0 < step.optimizer_seconds < step.seconds
    assert all(step.data_seconds is not None and 0 <= step.data_seconds < 60 for step in steps[1:])
    assert [step.tokens_seen for step in steps] == sorted({step.tokens_seen for step in steps})
    assert [event.step for event in told if isinstance(event, events.EvaluationCompleted)] == [3, 6]
    begun = only(told, events.TrainingStarted)
    assert (begun.max_steps, begun.rows_per_step, begun.evaluate_every, begun.save_every) == (6, 2, 3, 3)
    assert begun.recomputes is False
    assert (only(told, events.DataPrepared).train_rows, only(told, events.DataPrepared).held_out_rows) == (32, 8)
    phases = [event.phase for event in told if isinstance(event, events.PhaseStarted)]
    assert list(dict.fromkeys(phases)) == ["preparing", "loading", "adapting", "training", "saving"]
    committed = [event for event in told if isinstance(event, events.CheckpointCommitted)]
    assert [(event.step, (folder.path / event.path / "committed.json").exists()) for event in committed] == [
        (3, True),
        (6, True),
    ]
    assert only(told, events.RunFinished).result == "adapter"
    assert not list(folder.path.glob(".*partial"))
    assert not (folder.adapter / "training_args.bin").exists(), "no pickle in a result"

    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    tuned = AutoPeftModelForCausalLM.from_pretrained(str(folder.adapter))
    tokenizer = AutoTokenizer.from_pretrained(str(folder.adapter))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "My parcel is late."}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        with_adapter = tuned(prompt).logits
        with tuned.disable_adapter():
            without = tuned(prompt).logits
    assert (with_adapter - without).abs().max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "quantization",
    [
        {},
        {"load_in_4bit": True},
        {"load_in_4bit": True, "use_bnb_nested_quant": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        {"load_in_8bit": True},
    ],
    ids=["none", "nf4", "nf4-double", "fp4", "int8"],
)
def test_each_quantization_trains_and_takes_the_planned_bytes(
    tiny_model: Path, rows: Path, quantization: dict[str, Any], dtype: str
) -> None:
    folder = make_run(tiny_model, rows, dtype=dtype, **quantization)
    plan = plan_here(read_spec(folder.spec_file))
    assert plan.memory is not None
    parts = {part.name: part.bytes for part in plan.memory.parts}

    told = train(folder)

    assert only(told, events.RunFinished).step == 3
    loaded = only(told, events.ModelLoaded)
    assert loaded.dtype == dtype
    predicted = (parts["base_weights"] or 0) + (parts["quantization_constants"] or 0)
    buffers = 2 * 8 * 4  # the rotary frequencies of the tiny model, kept twice, in float32
    assert loaded.weight_bytes - predicted in (0, buffers // 2, buffers)
    assert only(told, events.ModelAdapted).trainable_parameters == plan.memory.trainable_parameters


def test_evaluating_in_between_does_not_change_what_is_learned(tiny_model: Path, rows: Path) -> None:
    four_bit = {"load_in_4bit": True, "dtype": "bfloat16", "max_steps": 5, "test_split_size": 0.2, "lora_dropout": 0.0}
    undisturbed = train(make_run(tiny_model, rows, **four_bit))
    evaluated = train(make_run(tiny_model, rows, **four_bit, eval_strategy="steps", eval_steps=1))

    def losses(told: list[Event]) -> list[tuple[int, float, float | None]]:
        return [(e.step, e.loss, e.grad_norm) for e in told if isinstance(e, events.StepCompleted)]

    assert sum(isinstance(event, events.EvaluationCompleted) for event in evaluated) == 5
    assert losses(evaluated) == losses(undisturbed)


def test_full_fine_tuning_leaves_a_whole_model(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows, use_peft=False, learning_rate=1e-3)

    told = train(folder)

    assert only(told, events.RunFinished).result == "model"
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(str(folder.model))
    base = AutoModelForCausalLM.from_pretrained(str(tiny_model))
    moved = [
        name
        for (name, before), (_, after) in zip(base.named_parameters(), saved.named_parameters(), strict=True)
        if not before.equal(after)
    ]
    assert "model.embed_tokens.weight" in moved
    assert only(told, events.ModelAdapted).trainable_parameters == sum(p.numel() for p in base.parameters())


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("prompt-completion", {"prompt": "My parcel is late.", "completion": " parcel / late"}),
        (
            "prompt-completion",
            {
                "prompt": [{"role": "user", "content": "My parcel is late."}],
                "completion": [{"role": "assistant", "content": "parcel / late"}],
            },
        ),
        ("text", {"text": "A parcel can be late."}),
    ],
    ids=["prompt-completion", "conversational", "text"],
)
def test_each_form_of_rows_trains(tiny_model: Path, tmp_path: Path, form: str, row: dict[str, Any]) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [row] * 12)

    told = train(make_run(tiny_model, data))

    assert only(told, events.DataPrepared).form == form
    assert only(told, events.RunFinished).step == 3


def test_sample_prompts_are_answered_before_and_after(tiny_model: Path, rows: Path) -> None:
    sampling = {"device": "cpu", "sample_prompts": ["My parcel is lost."], "sample_rows": 2}
    folder = make_run(tiny_model, rows, test_split_size=0.2, sftui=sampling)

    told = train(folder)

    base, tuned = (event for event in told if isinstance(event, events.SamplesAnswered))
    assert (base.who, tuned.who) == ("base", "tuned")
    assert [answer.prompt for answer in base.answers] == [answer.prompt for answer in tuned.answers]
    assert base.answers[0].prompt == "My parcel is lost."
    assert base.answers[0].expected is None
    expected = {row["messages"][1]["content"] for row in chat_rows(40)}
    assert {answer.expected for answer in base.answers[1:]} <= expected


def test_a_stop_before_training_ends_without_a_checkpoint(tiny_model: Path, rows: Path) -> None:
    control = RunControl()
    control.request_stop("asked for in the test")

    told = train(make_run(tiny_model, rows), control)

    assert only(told, events.RunStopped) == events.RunStopped(
        0, None, "asked for in the test", only(told, events.RunStopped).seconds
    )


def test_a_stop_while_training_saves_the_step_it_stopped_at(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows, max_steps=500, gradient_accumulation_steps=2)
    control = RunControl()
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, events.StepCompleted) and event.step == 2:
            control.request_checkpoint()
        if isinstance(event, events.StepCompleted) and event.step == 4:
            control.request_stop("enough")

    worker = TrainingWorker(read_spec(folder.spec_file), folder, tell, control)
    worker.start()
    worker.join(timeout=300)

    committed = [event.step for event in told if isinstance(event, events.CheckpointCommitted)]
    stopped = only(told, events.RunStopped)
    assert committed == [3, stopped.step]
    assert stopped.step in (4, 5)
    assert stopped.checkpoint == f"checkpoints/checkpoint-{stopped.step}"
    assert (folder.path / stopped.checkpoint / "committed.json").exists()


@pytest.mark.parametrize(
    ("spoil", "title", "words"),
    [
        ("rows", "A row is wrong", "bad.jsonl:2"),
        ("tokenizer", "", ""),
        ("optimizer", "", "no_such_optimizer"),
        ("targets", "No module to adapt", "no_such_layer"),
    ],
)
def test_whatever_goes_wrong_ends_the_run_once_and_in_words(
    tiny_model: Path, rows: Path, tmp_path: Path, spoil: str, title: str, words: str
) -> None:
    model, data = tiny_model, rows
    changes: dict[str, Any] = {}
    match spoil:
        case "rows":
            data = tmp_path / "bad.jsonl"
            data.write_text(rows.read_text().splitlines()[0] + '\n{"messages": null}\n')
        case "tokenizer":
            model = tmp_path / "half-a-model"
            model.mkdir()
            for name in ("config.json", "model.safetensors"):
                (model / name).write_bytes((tiny_model / name).read_bytes())
        case "optimizer":
            changes = {"optim": "no_such_optimizer"}
        case "targets":
            changes = {"lora_target_modules": ["no_such_layer"]}
    folder = make_run(model, data, **changes)

    failed = only(train(folder), events.RunFailed)

    assert title in failed.title
    assert words in failed.message
    assert failed.hint
    assert failed.traceback_file is not None
    assert "Traceback" in (folder.path / failed.traceback_file).read_text()


def test_the_run_tells_its_data_and_leaves_bad_rows_out_where_it_may(tiny_model: Path, tmp_path: Path) -> None:
    bad = {"messages": [{"role": "user", "content": "No answer."}]}
    data = write_jsonl(tmp_path / "rows.jsonl", [*chat_rows(20), bad])
    wanted = {"assistant_only_loss": True, "packing": True, "max_length": 200}
    folder = make_run(tiny_model, data, **wanted, sftui={"device": "cpu", "bad_rows": "skip"})

    told = train(folder)

    prepared = only(told, events.DataPrepared)
    assert (prepared.train_rows, prepared.skipped_rows) == (20, 1)
    assert prepared.skipped_kinds == (events.KindCount("no_answer", 1),)
    assert prepared.sequences < 20
    assert 0 < prepared.trained_tokens < prepared.tokens
    assert only(told, events.RunFinished).step == 3
    first = [event for event in told if isinstance(event, events.ChoiceMade) and event.name == "first_batch"]
    assert len(first) == 1
    assert "compared with the rows in the files" in first[0].reason
    assert told.index(first[0]) < min(told.index(step) for step in told if isinstance(step, events.StepCompleted))


def test_a_run_does_not_go_on_with_other_rows(tiny_model: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(20))
    folder = make_run(tiny_model, data, max_steps=2, save_strategy="steps", save_steps=1)
    train(folder)
    values = {**folder.spec_values(), "max_steps": 4}
    folder.spec_file.write_text(json.dumps(values))
    write_jsonl(data, chat_rows(21))

    failed = only(train(folder), events.RunFailed)

    assert failed.title == "The data is not what the run began with"
    assert "20 sequences" in failed.message
    write_jsonl(data, chat_rows(20))
    assert only(train(folder), events.RunFinished).step == 4


def test_a_worker_that_loads_shows_signs_of_life_and_one_that_waits_for_somebody_may_wait(
    tiny_model: Path, rows: Path
) -> None:
    now = 0.0
    folder, control = make_run(tiny_model, rows), RunControl()
    worker = TrainingWorker(read_spec(folder.spec_file), folder, lambda _: None, control)
    control.pulse = Pulse(lambda: now)
    for event, hangs in (
        (events.PhaseStarted("loading"), True),
        (events.LoadProgressed(1, 2, 0, 1), True),
        (events.RunPaused(3, "The disk is full"), False),
        (events.RunContinued(3, 9.0), True),
        (events.PhaseStarted("sampling"), False),
        (events.PhaseStarted("saving"), True),
    ):
        worker._emit(event)
        assert control.pulse.standstill() is None
        now += LONGEST_SECONDS + 1
        assert (control.pulse.standstill() is not None) == hangs, event
