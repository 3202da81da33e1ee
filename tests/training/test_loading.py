"""Loading a base model: told as it goes, stopped between weights, and refused in words when it would not be whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.memory.plan import plan_here
from core.models.remote_code import allow, find_remote_code
from core.runs import events
from core.runs.events import Event
from core.spec.yaml_file import read_spec
from core.training.control import RunControl
from core.training.worker import TrainingWorker
from tests.training.runs import make_run
from tests.training.test_worker import only, train


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="session")
def sharded_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in several weight files."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("sharded")
    AutoModelForCausalLM.from_pretrained(str(tiny_model)).save_pretrained(folder, max_shard_size="80KB")
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, folder)
    shutil.copy(tiny_model / "chat_template.jinja", folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def rewrite(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Save the weights again with something changed."""
    from safetensors.torch import load_file, save_file

    file = model / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def set_in(file: Path, **values: Any) -> None:
    """Change values of a JSON file; None removes one."""
    merged = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({name: value for name, value in merged.items() if value is not None}))


def failure(model: Path, rows: Path, **changes: Any) -> events.RunFailed:
    """How a run on this model fails: in words, with a hint, and with no exception's name for a title."""
    failed = only(train(make_run(model, rows, **changes)), events.RunFailed)
    assert isinstance(failed, events.RunFailed)
    assert "not foreseen" not in failed.title
    assert "Error" not in failed.title
    assert failed.hint or failed.kind == "SpecError"
    return failed


def notices(told: list[Event]) -> list[tuple[str, str]]:
    return [(event.title, event.message) for event in told if isinstance(event, events.ProblemNoticed)]


def test_loading_tells_bytes_and_files_up_to_the_last(sharded_model: Path, rows: Path) -> None:
    told = train(make_run(sharded_model, rows, load_in_4bit=True))

    progress = [event for event in told if isinstance(event, events.LoadProgressed)]
    shards = list(sharded_model.glob("*.safetensors"))
    assert (progress[0].done_bytes, progress[0].done_files) == (0, 0)
    assert (progress[-1].done_files, progress[-1].total_files) == (len(shards), len(shards))
    index = json.loads((sharded_model / "model.safetensors.index.json").read_text())
    assert progress[-1].done_bytes == progress[-1].total_bytes == index["metadata"]["total_size"]
    assert told.index(progress[-1]) < told.index(only(told, events.ModelLoaded))


@pytest.mark.parametrize("quantized", [True, False], ids=["nf4", "float32"])
def test_a_stop_while_loading_ends_the_run_within_a_file(sharded_model: Path, rows: Path, quantized: bool) -> None:
    folder = make_run(sharded_model, rows, load_in_4bit=quantized)
    control = RunControl()
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, events.LoadProgressed):
            control.request_stop("asked for while loading")

    worker = TrainingWorker(read_spec(folder.spec_file), folder, tell, control)
    worker.start()
    worker.join(timeout=300)

    assert only(told, events.RunStopped).reason == "asked for while loading"
    assert not any(isinstance(event, events.ModelLoaded) for event in told)
    assert [event.done_files for event in told if isinstance(event, events.LoadProgressed)] == [0]


def test_a_missing_file_is_named(sharded_model: Path, rows: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sharded_model, tmp_path / "model"))
    sorted(model.glob("*.safetensors"))[1].unlink()
    failed = failure(model, rows)
    assert failed.title == "The checkpoint is incomplete"
    assert "model-00002" in failed.message


def test_a_file_that_is_cut_short_is_named(model: Path, rows: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    failed = failure(model, rows)
    assert failed.title == "A weight file is damaged"
    assert "100 bytes are missing" in failed.message
    assert "download" in failed.hint


def test_an_index_that_names_absent_tensors_is_refused(sharded_model: Path, rows: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sharded_model, tmp_path / "model"))
    index = model / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.layers.7.mlp.up_proj.weight"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    failed = failure(model, rows)
    assert failed.title == "The checkpoint is damaged"
    assert "layers.7" in failed.message


@pytest.mark.parametrize("quantized", [True, False], ids=["nf4", "float32"])
def test_weights_that_are_in_no_file_are_not_made_up(model: Path, rows: Path, quantized: bool) -> None:
    gone = "model.layers.1.self_attn.q_proj.weight"
    rewrite(model, lambda weights: {name: weight for name, weight in weights.items() if name != gone})
    failed = failure(model, rows, load_in_4bit=quantized)
    assert failed.title == "Weights are missing"
    assert gone in failed.message
    assert "random" in failed.message


def test_an_output_head_that_is_not_tied_and_not_there_is_not_made_up(model: Path, rows: Path) -> None:
    set_in(model / "config.json", tie_word_embeddings=False)
    failed = failure(model, rows)
    assert failed.title == "Weights are missing"
    assert "lm_head.weight" in failed.message


@pytest.mark.parametrize("quantized", [True, False], ids=["nf4", "float32"])
def test_weights_of_another_shape_are_told_with_both_shapes(model: Path, rows: Path, quantized: bool) -> None:
    rewrite(
        model,
        lambda weights: {name: w[:7].clone() if name.endswith("norm.weight") else w for name, w in weights.items()},
    )
    failed = failure(model, rows, load_in_4bit=quantized)
    assert failed.title == "The weights do not fit this model"
    assert "64" in failed.message
    assert "7" in failed.message


@pytest.mark.parametrize("option", ["load_in_4bit", "load_in_8bit"])
def test_a_quantized_layer_of_another_shape_is_refused_too(model: Path, rows: Path, option: str) -> None:
    set_in(model / "config.json", intermediate_size=96)
    failed = failure(model, rows, **{option: True})
    assert failed.title == "The weights do not fit this model"
    assert "mlp" in failed.message


def test_tensors_without_a_place_are_told_and_the_run_goes_on(model: Path, rows: Path) -> None:
    import torch

    rewrite(model, lambda weights: {**weights, "model.layers.0.extra.weight": torch.ones(4)})
    told = train(make_run(model, rows))
    assert only(told, events.RunFinished).step == 3
    assert any(title == "Weights left out" and "extra.weight" in message for title, message in notices(told))


def test_a_missing_tokenizer_is_said_before_the_weights_are_loaded(model: Path, rows: Path) -> None:
    for file in model.glob("*token*"):
        file.unlink()
    folder = make_run(model, rows)
    told = train(folder)
    assert only(told, events.RunFailed).title == "The tokenizer is missing"
    assert not any(isinstance(event, events.LoadProgressed) for event in told)
    plan = plan_here(read_spec(folder.spec_file))
    assert any("tokenizer is missing" in problem.message for problem in plan.problems if problem.level == "error")


def test_a_broken_tokenizer_is_said_in_words(model: Path, rows: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    assert failure(model, rows).title == "The tokenizer cannot be loaded"


def test_a_vocabulary_larger_than_the_embedding_is_refused(model: Path, rows: Path) -> None:
    rewrite(model, lambda weights: {n: w[:200].clone() if "embed" in n else w for n, w in weights.items()})
    set_in(model / "config.json", vocab_size=200)
    failed = failure(model, rows)
    assert failed.title == "The tokenizer is of another model"
    assert "259" in failed.message
    assert "200" in failed.message


def _without_pad(model: Path, *more: str) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    entries = tokenizer["added_tokens"]
    for entry in entries:
        if entry["content"] == "<|pad|>":
            entry["content"] = more[0] if more else "<|other|>"
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[more[0] if more else "<|other|>"] = vocabulary.pop("<|pad|>")
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    set_in(model / "tokenizer_config.json", pad_token=None)


@pytest.mark.parametrize("spare", ["<|finetune_right_pad_id|>", "<unused0>", "<|reserved_special_token_0|>", "[PAD]"])
def test_without_a_pad_token_one_that_nothing_uses_is_taken(model: Path, rows: Path, spare: str) -> None:
    _without_pad(model, spare)
    folder = make_run(model, rows)
    told = train(folder)
    assert only(told, events.RunFinished).step == 3
    assert any(title == "No pad token" and spare in message for title, message in notices(told))


def test_without_any_the_end_token_pads_and_what_that_means_is_said(model: Path, rows: Path) -> None:
    _without_pad(model)
    told = train(make_run(model, rows))
    assert only(told, events.RunFinished).step == 3
    assert any("<|im_end|> pads rows" in message and "still learned" in message for _, message in notices(told))


def test_a_class_that_transformers_lacks_is_remarked_and_another_model_type_refused(model: Path, rows: Path) -> None:
    set_in(model / "config.json", architectures=["LlamaForTelepathy"])
    assert only(train(make_run(model, rows)), events.RunFinished).step == 3
    set_in(model / "config.json", model_type="telepathy")
    assert "telepathy" in failure(model, rows).message


@pytest.mark.parametrize("bits", [4, 8])
def test_a_checkpoint_that_bitsandbytes_has_quantized_is_loaded_as_it_is(
    tiny_model: Path, model: Path, rows: Path, tmp_path: Path, bits: int
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    # float32 is what transformers stores as the compute type when nobody says otherwise.
    how = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    stored = AutoModelForCausalLM.from_pretrained(str(tiny_model), quantization_config=how, device_map={"": "cpu"})
    (model / "model.safetensors").unlink()
    stored.save_pretrained(model)

    folder = make_run(model, rows, dtype="bfloat16")
    told = train(folder)
    assert only(told, events.RunFinished).step == 3
    losses = [event.loss for event in told if isinstance(event, events.StepCompleted)]
    assert losses[0] != losses[-1]
    fresh = train(make_run(tiny_model, rows, dtype="bfloat16", load_in_4bit=bits == 4, load_in_8bit=bits == 8))
    assert only(told, events.ModelLoaded).parameters == only(fresh, events.ModelLoaded).parameters
    # The stored constants and those made here come to the same first loss, but for the types they were rounded in.
    first = next(event.loss for event in fresh if isinstance(event, events.StepCompleted))
    assert losses[0] == pytest.approx(first, rel=0.02)

    for changes, field in (({"load_in_4bit": True}, "load_in_4bit"), ({"use_peft": False}, "use_peft")):
        refused = make_run(model, rows, **changes)
        assert field in [p.field for p in plan_here(read_spec(refused.spec_file)).problems if p.level == "error"]
        assert f"{field}: is o" in only(train(refused), events.RunFailed).message
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("method", "words"),
    [("gptq", "pip install optimum gptqmodel"), ("awq", "pip install gptqmodel"), ("fp8", "load_in_4bit")],
)
def test_other_quantizations_are_refused_with_what_they_need(model: Path, rows: Path, method: str, words: str) -> None:
    set_in(model / "config.json", quantization_config={"quant_method": method, "bits": 4})
    failed = failure(model, rows)
    assert method in failed.message
    assert words in failed.message


def test_skipped_modules_are_added_to_those_that_never_are_quantized(model: Path, rows: Path) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    from core.models.architecture import detect
    from core.models.loading import LoadRequest, load_model

    spec = read_spec(
        make_run(model, rows, load_in_4bit=True, sftui={"device": "cpu", "skip_modules": ["down_proj"]}).spec_file
    )
    loaded = load_model(spec, LoadRequest(model, detect(model), "bfloat16", None, "cpu"), lambda title, message: None)
    quantized = {name.rsplit(".", 1)[-1] for name, part in loaded.named_modules() if isinstance(part, Linear4bit)}
    assert quantized == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}
    assert not isinstance(loaded.lm_head, Linear4bit)
    computed = {part.compute_dtype for part in loaded.modules() if isinstance(part, Linear4bit)}
    assert computed == {torch.bfloat16}


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "attn_implementation", "experts_implementation"])
def test_a_config_cannot_name_a_kernel_to_run(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    from transformers.integrations import hub_kernels

    from core.models import loading

    asked: list[str] = []
    monkeypatch.setattr(loading, "_get_kernel", lambda name, *_, **__: asked.append(name))
    # As if the package were installed, and this kernel allowed: nothing but its being asked for is missing.
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    monkeypatch.setattr("transformers.modeling_utils.is_kernels_available", lambda: True)
    set_in(model / "config.json", **{key: "canary/attention"})
    told = train(make_run(model, rows, sftui={"device": "cpu", "allow_hub_kernels": ["canary/attention"]}))
    assert asked == []
    assert only(told, events.ModelLoaded).attention == "sdpa"
    assert only(told, events.RunFinished).step == 3


def test_a_kernel_runs_only_under_a_name_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import hub_kernels

    from core.models import loading

    asked: list[str] = []
    monkeypatch.setattr(loading, "_get_kernel", lambda name, *_, **__: asked.append(name))
    loading.limit_hub_kernels(["kernels-community/flash-attn2@main"])
    hub_kernels.get_kernel("kernels-community/flash-attn2", version=4)
    with pytest.raises(FileNotFoundError, match="allow_hub_kernels"):
        hub_kernels.get_kernel("kernels-community/mamba-ssm", version=1)
    loading.limit_hub_kernels([])
    with pytest.raises(FileNotFoundError):
        hub_kernels.get_kernel("kernels-community/flash-attn2", version=4)
    assert asked == ["kernels-community/flash-attn2"]


def test_own_code_runs_when_it_is_allowed_and_not_when_it_has_changed(model: Path, rows: Path) -> None:
    canary = model.parent / "canary"
    (model / "modeling_own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(canary)!r}).touch()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own_llama'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    classes = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    set_in(model / "config.json", model_type="own_llama", auto_map=classes, architectures=["OwnModel"])
    assert failure(model, rows).title == "This model runs its own code"
    assert not canary.exists()

    remote = find_remote_code(model, json.loads((model / "config.json").read_text()))
    assert remote is not None
    allow(remote)
    told = train(make_run(model, rows))
    assert only(told, events.RunFinished).step == 3
    assert canary.exists()

    canary.unlink()
    with (model / "modeling_own.py").open("a") as file:
        file.write("# changed\n")
    assert failure(model, rows).title == "This model runs its own code"
    assert not canary.exists()


def test_an_attention_that_cannot_work_here_is_refused_before_loading(model: Path, rows: Path) -> None:
    told = train(make_run(model, rows, attn_implementation="flash_attention_2"))
    assert "attn_implementation: flash_attention_2 cannot be used" in only(told, events.RunFailed).message
    assert not any(isinstance(event, events.LoadProgressed) for event in told)


def test_an_error_of_ours_is_what_it_is() -> None:
    with pytest.raises(SftuiError, match="cannot be loaded"):
        from core.models.loading import _cannot_load

        raise _cannot_load(ValueError("a\x1b[31m strange\nconfig"), "")
