"""Whatever a journal, a model, a dataset or a spec says, the commands print text that no terminal obeys."""

import contextlib
import dataclasses
import io
import itertools
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from core import cli
from core.console import describe, side_by_side
from core.runs import events
from core.runs.events import EVENT_TYPES, Answer, Entry, encode
from core.runs.state import RunState
from core.spec.build import build_spec
from core.spec.yaml_file import read_spec, to_yaml
from tests.model_files import LLAMA, write_model, write_safetensors
from tests.safety.hostile_text import COUNT, assert_harmless, hostile_texts, plain_texts
from tests.tui.helpers import write_run


def filled(hint: Any, texts: Iterator[str]) -> Any:
    """A value of a type, in which every text is the next hostile one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is str:
        return next(texts)
    if origin is Literal:
        return arguments[0]
    if hint in (int, float, bool):
        return hint(3)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return typing.cast("Any", hint)(**{name: filled(inner, texts) for name, inner in hints.items()})
    if origin is tuple:
        return tuple(filled(arguments[0], texts) for _ in range(3))
    return filled(arguments[0], texts)


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_an_event_in_words_commands_nothing(kind: Any) -> None:
    texts = itertools.cycle(hostile_texts())
    for _ in range(COUNT // len(EVENT_TYPES)):
        event = filled(kind, texts)
        assert_harmless(describe(event))
        assert_harmless(encode(Entry(1, 1.0, event)).replace("\x7f", ""))


def test_answers_side_by_side_command_nothing() -> None:
    texts = iter(hostile_texts())
    answers = [tuple(Answer(next(texts), next(texts), next(texts)) for _ in range(800)) for _ in range(2)]
    base, tuned = (events.SamplesAnswered("base", 1, answers[0]), events.SamplesAnswered("tuned", 1, answers[1]))
    assert_harmless(side_by_side(RunState(base_samples=base, tuned_samples=tuned)))


def printed(*arguments: str) -> str:
    """What a command prints, on both of its outputs; it may fail, but never with a traceback."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        cli.main(arguments)
    assert_harmless(told.getvalue())
    return out.getvalue()


def test_runs_and_their_journals_are_listed_and_shown_unharmed(tmp_path: Path) -> None:
    texts = itertools.cycle(hostile_texts())
    for number, name in enumerate(plain_texts(30)):
        told = [filled(kind, texts) for kind in EVENT_TYPES.values()]
        write_run(f"{number}-{name.replace('/', '')}", told)
    listed = printed("runs")
    assert_harmless(listed)
    assert listed.count("\n") == 30
    assert len(json.loads(printed("runs", "--json"))) == 30
    for number in range(8):
        assert_harmless(printed("attach", f"{number}-"))
        assert_harmless(printed("resume", f"{number}-", "--from", "7"))
        for command in ("stop", "pause", "checkpoint"):
            assert_harmless(printed(command, f"{number}-"))


def test_a_journal_of_wrong_types_spoils_no_list(tmp_path: Path) -> None:
    began = events.RunStarted("run", "model", "lora", 1, "1", warm=False)
    folder = write_run("run-aaaa", [began])
    odd: tuple[Any, ...] = ("\x1b[2J", [[]], {"a": 1}, 1, None, True)
    with folder.journal_file.open("a") as file:
        for kind in EVENT_TYPES.values():
            for wrong in odd:
                fields = dict.fromkeys(typing.get_type_hints(kind), wrong)
                file.write(json.dumps({**fields, "seq": 2, "time": 1.0, "type": kind.__name__}) + "\n")
    assert_harmless(printed("runs"))
    assert_harmless(printed("attach", "run-aaaa"))


def test_a_model_of_hostile_words_is_described_unharmed(tmp_path: Path) -> None:
    for number, text in enumerate(plain_texts(40)):
        folder = tmp_path / f"{number}{text.replace('/', '')}"
        config: dict[str, Any] = {
            "architectures": ["LlamaForCausalLM", text], "model_type": "llama", "dtype": text, "hidden_act": text,
            "quantization_config": {"quant_method": text}, "layer_types": [text], "torch_dtype": text,
        }  # fmt: skip
        odd: tuple[dict[str, Any], ...] = (
            {"model_type": text},
            {"architectures": [text]},
            {"auto_map": {"AutoModel": text}, "model_type": text},
            {"quantization_config": None, "dtype": "bfloat16"},
        )
        write_model(folder, **(config | odd[number % 4]))
        write_safetensors(folder / "model.safetensors", {**LLAMA, text or "t": (1,)})
        (folder / "README.md").write_text(f"---\nlicense: other\nlicense_name: {json.dumps(text)}\n---\n{text}")
        assert_harmless(printed("model", str(folder)))
        assert_harmless(printed("model", text))


def test_rows_of_hostile_words_are_counted_and_named_unharmed(tmp_path: Path) -> None:
    texts = iter(plain_texts(3000))
    for number in range(15):
        file = tmp_path / f"{number}{next(texts).replace('/', '')[:40]}.jsonl"
        rows: list[Any] = [
            {next(texts): next(texts), "messages": [{"role": next(texts), "content": 3}]} for _ in range(8)
        ]
        rows += [{"prompt": [next(texts)], "completion": next(texts)}, {next(texts): {next(texts): None}}]
        file.write_text("\n".join([*map(json.dumps, rows), next(texts), '{"a": ' + next(texts)]))
        assert_harmless(printed("data", str(file)))
    assert_harmless(printed("data", next(texts) or "x", "--split", next(texts), "--name", next(texts)))


def test_a_spec_of_hostile_words_is_planned_and_printed_unharmed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", model_type="llama", architectures=["LlamaForCausalLM"])
    for number, text in enumerate(plain_texts(20)):
        values: dict[str, Any] = {"model_name_or_path": str(model), "datasets": [{"path": text or "x"}]}
        values |= (
            {"sftui": {"name": text, "device": text}},
            {text or "x": text},
            {"learning_rate": text, "optim": text, "attn_implementation": text},
            {"lora_target_modules": [text or "x"], "chat_template_path": text or "x"},
            {"model_name_or_path": text or "x", "lr_scheduler_type": text},
        )[number % 5]
        file = tmp_path / f"{number}.yaml"
        file.write_text(json.dumps(values))
        for arguments in (("plan", "--yaml"), ("run",)):
            assert_harmless(printed(arguments[0], str(file), *arguments[1:]))
        assert_harmless(printed("plan", "starter", "--set", f"{text}={text}"))


def test_a_written_spec_keeps_hostile_words_to_the_letter(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for text in plain_texts(40):
        spec = build_spec({"model_name_or_path": "m", "datasets": [{"path": "d"}], "sftui": {"name": text}})
        file.write_text(to_yaml(spec))
        assert_harmless(to_yaml(spec))
        assert read_spec(file) == spec
