"""Every kind of adapter trains two steps for real, and loads again on the base model with PEFT alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.runs.events import Event
from core.runs.folder import RunFolder
from tests.families import build_family
from tests.tiny import build_tiny_model
from tests.training.runs import make_run
from tests.training.test_worker import only, train

PLAIN = {"max_steps": 2, "lora_dropout": 0.0}
NF4 = {"load_in_4bit": True, "dtype": "float32"}


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Mixtral."""
    return build_family("mixtral", tmp_path_factory.mktemp("mixture") / "mixtral")


def starting(how: str, **others: Any) -> dict[str, Any]:
    return {"sftui": {"device": "cpu", "name": "tiny", "init_lora_weights": how, **others}}


def tensors(folder: RunFolder) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder.adapter / "adapter_model.safetensors"))


def chosen(told: list[Event]) -> dict[str, str]:
    return {event.name: event.value for event in told if isinstance(event, events.ChoiceMade)}


def loss_with(model: Path, adapter: Path | None) -> float:
    """The loss on one row of what PEFT and transformers load by themselves."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, str(adapter))
    tokens = tokenizer("My parcel is late. parcel / late", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(loaded(tokens, labels=tokens).loss)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"use_dora": True, **NF4},
        starting("gaussian"),
        starting("pissa"),
        {"use_rslora": True, **starting("pissa")},
        starting("olora"),
        {**NF4, **starting("loftq")},
        starting("eva"),
        {**NF4, "packing": True, **starting("eva")},
        {"lora_modules_to_save": ["embed_tokens"]},
        {"lora_target_modules": ["q_proj", "down_proj"]},
    ],
    ids=["lora", "rslora", "dora", "dora-nf4", "gaussian", "pissa", "pissa-rslora", "olora", "loftq", "eva", "eva-nf4",
         "embeddings",
         "two"],
)  # fmt: skip
def test_each_kind_trains_and_loads_again(tiny_model: Path, rows: Path, changes: dict[str, Any]) -> None:
    folder = make_run(tiny_model, rows, **{**PLAIN, **changes})

    told = train(folder)

    assert only(told, events.RunFinished).step == 2
    saved = tensors(folder)
    moved = [name for name in saved if ".lora_B." in name and saved[name].any()]
    assert len(moved) == sum(".lora_B." in name for name in saved) > 0
    assert any(".lora_magnitude_vector" in name for name in saved) == changes.get("use_dora", False)
    assert loss_with(tiny_model, folder.adapter) < loss_with(tiny_model, None)
    trained = sum(tensor.numel() for tensor in saved.values())
    halved = 2 if changes.get("sftui", {}).get("init_lora_weights") in ("pissa", "olora") else 1
    tied = 259 * 64 if "lora_modules_to_save" in changes else 0  # written under both of its names
    assert only(told, events.ModelAdapted).trainable_parameters == (trained - tied) / halved


@pytest.mark.parametrize("how", ["pissa", "olora"])
def test_a_start_in_the_bases_weights_is_written_for_the_base_as_it_is(tiny_model: Path, rows: Path, how: str) -> None:
    answering = {"sample_prompts": ["My parcel is lost."], "init_lora_weights": how, "device": "cpu"}
    folder = make_run(tiny_model, rows, **PLAIN, sftui=answering)

    told = train(folder)

    config = json.loads((folder.adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 64, True)
    resting = make_run(tiny_model, rows, **PLAIN, learning_rate=1e-9, **starting(how))
    train(resting)
    assert loss_with(tiny_model, resting.adapter) == pytest.approx(loss_with(tiny_model, None), abs=1e-5)
    # At the first loss, model and base are the same.
    plain = train(make_run(tiny_model, rows, **PLAIN))
    first = [next(event for event in run if isinstance(event, events.StepCompleted)).loss for run in (told, plain)]
    assert first[0] == pytest.approx(first[1], abs=1e-4)
    base, tuned = (event for event in told if isinstance(event, events.SamplesAnswered))
    assert (base.who, tuned.who) == ("base", "tuned")
    untouched = train(make_run(tiny_model, rows, **PLAIN, sftui={**answering, "init_lora_weights": "default"}))
    assert base.answers == next(event for event in untouched if isinstance(event, events.SamplesAnswered)).answers


def test_pissa_finds_the_same_start_whatever_was_drawn_before(tiny_model: Path, rows: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from core.models.adapters import attach_adapters
    from core.models.first_weights import first_weights
    from core.spec.yaml_file import read_spec

    spec = read_spec(make_run(tiny_model, rows, **starting("pissa")).spec_file)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(first_weights(attach_adapters(AutoModelForCausalLM.from_pretrained(tiny_model), spec), spec))
    assert len(found[0]) == 28
    assert all(found[0][name].equal(found[1][name]) for name in found[0])


def test_loftq_makes_up_for_a_part_of_what_four_bits_lose(tiny_model: Path, rows: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from core.models.adapters import attach_adapters
    from core.models.loading import quantization_config
    from core.spec.yaml_file import read_spec

    spec = read_spec(make_run(tiny_model, rows, **NF4, **starting("loftq"), lora_r=16, use_rslora=True).spec_file)
    tokens = torch.arange(3, 99)[None]
    with torch.no_grad():
        exact = AutoModelForCausalLM.from_pretrained(tiny_model)(tokens).logits
        # bitsandbytes repacks weights on some CPUs as soon as a model in evaluation mode has run.
        model = AutoModelForCausalLM.from_pretrained(
            tiny_model, quantization_config=quantization_config(spec, "float32")
        ).train()
        lossy = model(tokens).logits
        started = attach_adapters(model, spec)
        for module in started.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        nearer = started(tokens).logits
    assert (nearer - exact).norm() < 0.9 * (lossy - exact).norm()


def test_eva_starts_from_what_the_rows_have_most_of(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows, **PLAIN, learning_rate=1e-9, **starting("eva"))

    told = train(folder)

    assert only(told, events.RunFinished).step == 2
    for name, tensor in tensors(folder).items():
        if ".lora_A." in name:
            # Singular vectors; a random start has none of unit length.
            assert (tensor @ tensor.T).diagonal().tolist() == pytest.approx([1.0] * 4, abs=1e-4), name


def test_the_output_head_and_the_embeddings_are_trained_whole(rows: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = build_family("llama", tmp_path / "llama")
    base = load_file(model / "model.safetensors")
    assert "lm_head.weight" in base, "its head is its own"
    folder = make_run(model, rows, **PLAIN, **NF4, lora_modules_to_save=["lm_head", "embed_tokens"])

    told = train(folder)

    saved = tensors(folder)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        difference = saved[f"base_model.model.{name}"].float() - base[name]
        assert difference.abs().max() > 1e-3, f"{name} was not trained"
    alone = only(train(make_run(model, rows, **PLAIN, **NF4)), events.ModelAdapted).trainable_parameters
    both = base["lm_head.weight"].numel() + base["model.embed_tokens.weight"].numel()
    assert only(told, events.ModelAdapted).trainable_parameters == alone + both


@pytest.mark.parametrize("stored", [{}, NF4], ids=["float32", "nf4"])
def test_the_experts_of_a_mixture_are_trained(mixture: Path, rows: Path, stored: dict[str, Any]) -> None:
    folder = make_run(mixture, rows, max_steps=2, lora_dropout=0.05, **stored)

    told = train(folder)

    assert only(told, events.RunFinished).step == 2
    assert {"experts.down_proj", "experts.gate_up_proj", "q_proj"} <= set(
        only(told, events.ModelAdapted).target_modules
    )
    assert chosen(told)["lora_dropout"] == "0"
    saved = tensors(folder)
    experts = [name for name in saved if ".experts." in name and ".lora_B." in name]
    assert len(experts) == 4
    assert all(saved[name].any() for name in experts)
    assert not [name for name in saved if ".gate." in name], "the router is left alone"
    assert loss_with(mixture, folder.adapter) < loss_with(mixture, None)


@pytest.mark.parametrize("stored", [{}, NF4], ids=["float32", "nf4"])
def test_an_adapter_is_trained_further_from_its_own_values(
    tiny_model: Path, rows: Path, stored: dict[str, Any]
) -> None:
    first = make_run(tiny_model, rows, max_steps=8, lora_r=6, lora_target_modules=["q_proj", "v_proj"], **stored)
    began = train(first)
    before = tensors(first)

    # The folder of a run stands for the adapter in it.
    second = make_run(tiny_model, rows, **PLAIN, **stored, **starting("default", start_from_adapter=str(first.path)))
    told = train(second)

    after = tensors(second)
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert any(not after[name].equal(before[name]) for name in after)
    assert max((after[name].float() - before[name].float()).abs().max() for name in after) < 0.05
    losses = [event.loss for event in began if isinstance(event, events.StepCompleted)]
    goes_on = next(event.loss for event in told if isinstance(event, events.StepCompleted))
    assert goes_on < losses[0] - 0.5 * (losses[0] - losses[-1])
    assert chosen(told)["lora_r"] == "6"
    assert chosen(told)["lora_target_modules"] == "q_proj, v_proj"
    adapted = only(told, events.ModelAdapted)
    assert adapted.target_modules == ("q_proj", "v_proj")
    assert adapted.trainable_parameters == sum(tensor.numel() for tensor in before.values())


@pytest.fixture(scope="session")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter for the tiny model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("nothing", "has no adapter_config.json"),
        ("pickle", "a pickle, which can run code; it is never loaded"),
        ("weights", "has no adapter_model.safetensors"),
        ("torn", "cannot be read"),
        ("kind", "is no LoRA adapter, but IA3"),
        ("pissa", "fits only a changed base model"),
        ("wider", "has 64 features here, and 32 there"),
        ("deeper", "there is no model.layers.2.self_attn.q_proj in this one"),
        ("less", "weights do not match"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_words(
    tiny_model: Path, adapter: Path, rows: Path, tmp_path: Path, spoil: str, words: str
) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "spoilt"
    shutil.copytree(adapter, folder)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    held = load_file(weights)
    match spoil:
        case "nothing":
            shutil.rmtree(folder)
        case "pickle":
            weights.rename(folder / "adapter_model.bin")
        case "weights":
            weights.unlink()
        case "torn":
            weights.write_bytes(weights.read_bytes()[:200])
        case "kind":
            config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "IA3"}))
        case "pissa":
            config.write_text(json.dumps({**json.loads(config.read_text()), "init_lora_weights": "pissa_niter_4"}))
        case "wider":
            save_file({n: torch.zeros(4, 32) if "lora_A" in n else t for n, t in held.items()}, weights)
        case "deeper":
            save_file({n.replace("layers.1", "layers.2"): t for n, t in held.items()}, weights)
        case "less":
            save_file({n: t for n, t in held.items() if "layers.0" in n}, weights)

    told = train(make_run(tiny_model, rows, **PLAIN, **starting("default", start_from_adapter=str(folder))))

    failed = only(told, events.RunFailed)
    assert failed.title == "Training cannot start from this adapter"
    assert words in failed.message
    assert failed.hint


@pytest.mark.parametrize("how", ["pissa", "eva"])
def test_a_resumed_run_ends_where_an_unbroken_one_does(rows: Path, tmp_path: Path, how: str) -> None:
    from core.training.control import RunControl

    model = build_tiny_model(tmp_path / "model")
    changes = {**PLAIN, "max_steps": 4, **starting(how)}
    whole = make_run(model, rows, **changes)
    train(whole)

    broken = make_run(model, rows, **changes, save_strategy="steps", save_steps=2)
    control = RunControl()
    told: list[Event] = []

    def stop_after_two(event: Event) -> None:
        told.append(event)
        if isinstance(event, events.StepCompleted) and event.step == 2:
            control.request_stop("in the middle")

    from core.spec.yaml_file import read_spec
    from core.training.worker import TrainingWorker

    worker = TrainingWorker(read_spec(broken.spec_file), broken, stop_after_two, control)
    worker.start()
    worker.join(timeout=300)
    assert only(told, events.RunStopped).step in (2, 3)
    train(broken)

    kept, again = tensors(whole), tensors(broken)
    assert all(kept[name].equal(again[name]) for name in kept)
