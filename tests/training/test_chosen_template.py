"""A base model gets a chat template: the tokens it needs, their rows in the model, and the result that knows them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.choice import Choice
from core.data.chat_templates import BUILT_IN
from core.data.tokenizing import RowTokenizer
from core.errors import SftuiError
from core.models.adapters import attach_adapters
from core.models.token_rows import fit_to_tokenizer
from core.models.tokenizer import load_tokenizer
from core.runs import events
from core.spec.run_spec import DatasetSource, RunSpec
from core.spec.yaml_file import read_spec
from core.training.control import RunControl
from core.training.worker import TrainingWorker
from tests.chat_tokenizers import chat_tokenizer, shown
from tests.tiny import CHAT_TEMPLATE, write_rows
from tests.training.runs import make_run

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello."},
]


def make_base(folder: Path, *, spare: int = 0, tied: bool = True, template: str | None = None, **names: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = chat_tokenizer(template, **names)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def no_notice(title: str, message: str) -> None:
    raise AssertionError(f"{title}: {message}")


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_built_in_template_trains_the_answer_and_its_end(tmp_path: Path, name: str) -> None:
    folder = make_base(tmp_path / "base")
    notices: list[str] = []
    tokenizer = load_tokenizer(folder, lambda title, _: notices.append(title), chat_template_path=name)
    rows = RowTokenizer(tokenizer, "assistant")
    assert rows.way == "markers"
    assert not rows.problems
    row = rows.tokenize({"messages": CHAT})
    text = shown(tokenizer, row.input_ids, row.trained)
    end = BUILT_IN[name].end or "<eos>"
    assert text.rstrip().endswith(f"Hello.{end}⟧")
    assert text.count("⟦") == 1
    assert "Be brief." in text
    assert tokenizer.eos_token == end
    assert notices == (["New special tokens"] if BUILT_IN[name].tokens else [])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 8])
def test_new_tokens_are_trained_and_come_back_with_the_adapter(tmp_path: Path, tied: bool, spare: int) -> None:
    from peft import AutoPeftModelForCausalLM

    folder = make_base(tmp_path / "base", spare=spare, tied=tied)
    tokenizer = load_tokenizer(folder, lambda *_: None, chat_template_path="chatml")
    model = load(folder)
    told: list[Choice] = []
    rows_before = model.get_input_embeddings().weight.shape[0]
    new = fit_to_tokenizer(model, tokenizer, folder, told.append)
    assert [tokenizer.convert_ids_to_tokens(number) for number in new] == ["<|im_start|>", "<|im_end|>"]
    assert model.get_input_embeddings().weight.shape[0] == rows_before + (0 if spare else 2)
    mean = model.get_input_embeddings().weight[: new[0]].mean(dim=0).detach().clone()
    assert torch.allclose(model.get_input_embeddings().weight[new[1]], mean)
    assert {choice.name for choice in told} == {"embedding", "eos_token_id"}
    assert new[1] in model.generation_config.eos_token_id

    adapted = attach_adapters(
        model, RunSpec(model_name_or_path=str(folder), datasets=[DatasetSource(path="rows.jsonl")]), new_tokens=new
    )
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=1.0)
    row = RowTokenizer(tokenizer, "assistant").tokenize({"messages": CHAT})
    ids = torch.tensor([row.input_ids])
    adapted(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    adapted.eval()
    expected = adapted(input_ids=ids).logits
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")

    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32).eval()
    assert torch.equal(again(input_ids=ids).logits, expected)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    rows = {name: tensor for name, tensor in saved.items() if name.endswith("trainable_tokens_delta")}
    assert all(tensor.shape == (2, 32) and not torch.allclose(tensor[1], mean, atol=1e-4) for tensor in rows.values())
    assert any("embed_tokens" in name for name in rows)
    assert tied or any("lm_head" in name for name in rows)
    # Where spare rows were taken, the adapter holds these rows and not the whole embedding.
    assert (max(tensor.shape[0] for tensor in saved.values()) > 500) is (spare == 0)


def test_a_template_without_new_tokens_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    tokenizer = load_tokenizer(folder, no_notice, chat_template_path="zephyr")
    told: list[Choice] = []
    assert fit_to_tokenizer(load(folder), tokenizer, folder, told.append) == ()
    assert not told


def test_generation_stops_where_the_template_ends_answers(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", template=CHAT_TEMPLATE)
    tokenizer, model = load_tokenizer(folder, no_notice), load(folder)
    told: list[Choice] = []
    fit_to_tokenizer(model, tokenizer, folder, told.append)
    assert set(model.generation_config.eos_token_id) == {
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
    }
    assert [choice.value for choice in told] == ["<|im_end|>"]


def test_a_template_of_a_file_or_of_another_tokenizer(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    (tmp_path / "own.jinja").write_text(BUILT_IN["zephyr"].jinja, encoding="utf-8")
    tokenizer = load_tokenizer(folder, no_notice, chat_template_path=str(tmp_path / "own.jinja"))
    assert tokenizer.chat_template == BUILT_IN["zephyr"].jinja
    instruct = tmp_path / "instruct"
    chat_tokenizer(CHAT_TEMPLATE, eos="<|im_end|>", tokens=("<|unused|>",)).save_pretrained(instruct)
    notices: list[str] = []
    tokenizer = load_tokenizer(folder, lambda _, message: notices.append(message), chat_template_path=str(instruct))
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.eos_token == "<|im_end|>"
    assert "<|unused|>" not in tokenizer.get_vocab()
    assert "<|im_start|>" in notices[0]


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    with pytest.raises(SftuiError, match="No such chat template") as caught:
        load_tokenizer(folder, no_notice, chat_template_path="chatlm")
    assert "chatml" in caught.value.hint
    with pytest.raises(SftuiError, match="the tokenizer there has none"):
        load_tokenizer(folder, no_notice, chat_template_path=str(folder))


def test_a_missing_end_token_is_taken_from_the_models_configuration(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        if file.exists():
            file.write_text(
                file.read_text(encoding="utf-8").replace('"eos_token": "<eos>"', '"x": null'), encoding="utf-8"
            )
    notices: list[str] = []
    tokenizer = load_tokenizer(folder, lambda title, message: notices.append(f"{title}: {message}"))
    assert tokenizer.eos_token == "<eos>"
    assert notices[0].startswith("No end token: The tokenizer names none: <eos> is taken")


@pytest.mark.parametrize("options", [{}, {"load_in_4bit": True}, {"use_peft": False}], ids=["lora", "qlora", "full"])
def test_a_run_on_a_base_model_with_chatml_gives_a_result_that_has_it(tmp_path: Path, options: dict[str, Any]) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    base = make_base(tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    saves = {"save_strategy": "steps", "save_steps": 2}
    folder = make_run(base, rows, chat_template_path="chatml", assistant_only_loss=True, **saves, **options)
    told: list[events.Event] = []
    worker = TrainingWorker(read_spec(folder.spec_file), folder, told.append, RunControl())
    worker.start()
    worker.join(120)
    assert isinstance(told[-1], events.RunFinished), told[-1]
    choices = {event.name: event.value for event in told if isinstance(event, events.ChoiceMade)}
    assert choices["embedding"] == "605 rows"
    result = folder.model if options.get("use_peft") is False else folder.adapter
    tokenizer = AutoTokenizer.from_pretrained(result)
    assert tokenizer.chat_template == BUILT_IN["chatml"].jinja
    assert tokenizer.eos_token == "<|im_end|>"
    stops = GenerationConfig.from_pretrained(result).eos_token_id
    assert tokenizer.eos_token_id in (stops if isinstance(stops, list) else [stops])
    for checkpoint in folder.checkpoints.glob("checkpoint-*"):
        assert AutoTokenizer.from_pretrained(checkpoint).chat_template == BUILT_IN["chatml"].jinja
    assert any(folder.checkpoints.glob("checkpoint-*"))
    tensors = load_file(next(result.glob("*.safetensors")))
    if result == folder.model:
        assert tensors["model.embed_tokens.weight"].shape[0] == 605
        return
    (rows_of_tokens,) = (
        value for name, value in tensors.items() if name.endswith("embed_tokens.token_adapter.trainable_tokens_delta")
    )
    assert rows_of_tokens.shape == (2, 32)
    # Both began as the mean of all rows, and have moved apart.
    assert not torch.allclose(rows_of_tokens[0], rows_of_tokens[1])
