"""What is trained of mixtures with shared experts and dense first layers is what PEFT loads again by itself."""

from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.spec.build import build_spec
from core.spec.run_spec import RunSpec
from tests.families import build_family
from tests.training.runs import make_run
from tests.training.test_worker import only, train

NF4 = {"load_in_4bit": True, "dtype": "float32"}
STORED = {"float32": {}, "nf4": NF4, "int8": {"load_in_8bit": True, "dtype": "float32"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a mixture, made once."""
    parent = tmp_path_factory.mktemp("mixtures")

    def make(model_type: str) -> Path:
        folder = parent / model_type
        return folder if folder.is_dir() else build_family(model_type, folder)

    return make


def load(folder: Path, spec: RunSpec) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from core.models.loading import quantization_config

    quantization = quantization_config(spec, "float32")
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=quantization, device_map={"": "cpu"}
    )


def logits(model: Any) -> Any:
    import torch

    # Nothing is dropped out here, and in evaluation mode bitsandbytes repacks 4-bit weights on some CPUs and fails on
    # DeepSeek's in 8 bit.
    with torch.no_grad():
        return model.train()(torch.arange(3, 40)[None]).logits


def layers_in(adapter: Path) -> set[str]:
    """The last two parts of the names of all that has a matrix in an adapter's file."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", "pt") as held:
        names = {name.partition(".lora_")[0].replace(".base_layer", "") for name in held.keys()}  # noqa: SIM118
    return {".".join(name.split(".")[-2:]) for name in names}


MLP = ["gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("model_type", "stored", "targets"),
    [
        ("qwen2_moe", "nf4", "all-linear"),
        ("deepseek_v3", "float32", "all-linear"),
        ("deepseek_v3", "int8", "all-linear"),
        ("glm4_moe", "float32", MLP),
        ("ernie4_5_moe", "float32", "all-linear"),
        ("ernie4_5_moe", "nf4", MLP),
        ("mixtral", "int8", "all-linear"),
    ],
)
def test_peft_alone_loads_to_the_same_outputs(
    made: Any, tmp_path: Path, model_type: str, stored: str, targets: Any
) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM, PeftModel

    from core.models.adapters import attach_adapters

    folder = made(model_type)
    spec = build_spec(
        {"model_name_or_path": str(folder), "datasets": ["rows"], "use_peft": True, "lora_r": 3, "lora_dropout": 0.0,
         "lora_target_modules": targets, **STORED[stored]}
    )  # fmt: skip
    adapted = attach_adapters(load(folder, spec), spec)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.05)
    expected = logits(adapted)
    with adapted.disable_adapter():
        assert (logits(adapted) - expected).abs().max() > 0.05

    adapted.save_pretrained(tmp_path)
    if stored == "float32":
        again = AutoPeftModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    else:
        again = PeftModel.from_pretrained(load(folder, spec), str(tmp_path))

    assert torch.equal(logits(again), expected)
    if model_type != "mixtral":
        shared = "shared_expert" if model_type == "qwen2_moe" else "shared_experts"
        owners = ("mlp", shared)
        wanted = {f"{owner}.{name}" for owner in owners for name in ("gate_proj", "up_proj", "down_proj")}
        assert wanted | {"mlp.experts"} <= layers_in(tmp_path)
    if stored == "float32":
        merged = logits(again.merge_and_unload())
        assert torch.allclose(merged, expected, atol=1e-5)


def test_shared_experts_and_dense_layers_are_trained_and_trained_further(made: Any, rows: Path) -> None:
    from safetensors.torch import load_file

    def run(**changes: Any) -> tuple[Any, dict[str, Any]]:
        folder = make_run(made("glm4_moe"), rows, max_steps=2, lora_dropout=0.0, activation_checkpointing=True,
                          **{**NF4, **changes})  # fmt: skip
        told = train(folder)
        assert only(told, events.RunFinished).step == 2
        assert {"gate_proj", "up_proj", "down_proj", "experts.gate_up_proj"} <= set(
            only(told, events.ModelAdapted).target_modules
        )
        return folder, load_file(folder.adapter / "adapter_model.safetensors")

    first, before = run()
    moved = [name for name in before if ".lora_B." in name and before[name].any()]
    # Attention and an MLP of each layer, one of which is the shared expert; and both weights of the fused experts.
    assert len(moved) == 2 * 4 + 2 * 3 + 2 == sum(".lora_B." in name for name in before)
    assert sum("shared_experts" in name for name in moved) == 3

    _, after = run(sftui={"device": "cpu", "name": "tiny", "start_from_adapter": str(first.path)})
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert all(not after[name].equal(before[name]) for name in moved)
    assert max((after[name].float() - before[name].float()).abs().max() for name in after) < 0.05


def test_attention_over_compressed_keys_is_evaluated_and_generates_in_8_bit(made: Any) -> None:
    import torch

    from core.models.architecture import detect
    from core.models.loading import LoadRequest, load_model

    folder = made("deepseek_v3")
    spec = build_spec({"model_name_or_path": str(folder), "datasets": ["rows"], "use_peft": True, **STORED["int8"]})
    request = LoadRequest(folder, detect(folder), "float32", None, "cpu")
    model = load_model(spec, request, lambda title, message: None)
    rows = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        trained, evaluated = model.train()(rows).logits, model.eval()(rows).logits
    assert (trained - evaluated).abs().max() < 0.05 * trained.std()
    assert model.generate(rows, max_new_tokens=2, do_sample=False).shape == (2, 22)
