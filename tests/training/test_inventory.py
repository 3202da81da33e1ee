"""The inventory says to the byte what is loaded, and to the weight what is adapted, for models of every make."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.memory.estimate import MemoryEstimate, estimate
from core.memory.plan import make_plan, read_model
from core.memory.weights import weights_of
from core.models.inventory_file import Inventory, cached_inventory, inventory_path
from core.spec.run_spec import RunSpec
from tests.every_type import small_config
from tests.unit.test_all_architectures import REFUSED

# The sizes leave remainders in the blocks of 64 weights and of 256 scales.
USUAL = {"hidden_size": 48, "intermediate_size": 76, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 2, "vocab_size": 331, "head_dim": 12, "pad_token_id": 0}  # fmt: skip
DEEPSEEK = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 20,
            "kv_lora_rank": 20, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 12,
            "num_key_value_heads": 4, "moe_intermediate_size": 28, "first_k_dense_replace": 1}  # fmt: skip
VISION = {"hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
QWEN_VISION = {"hidden_size": 36, "intermediate_size": 52, "depth": 1, "num_heads": 2, "out_hidden_size": 48}
TYPES: dict[str, dict[str, Any]] = {
    "llama": {**USUAL, "tie_word_embeddings": True, "attention_bias": True},
    "qwen3": USUAL,
    "gemma3_text": {**USUAL, "sliding_window": 8},
    "phi3": USUAL,
    "mistral": USUAL,
    "mixtral": {**USUAL, "num_local_experts": 4},
    "qwen3_moe": {**USUAL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 28,
                  "mlp_only_layers": [0]},
    "deepseek_v3": {**USUAL, **DEEPSEEK},
    "gpt_neox": USUAL,
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 331, "n_positions": 64},
    "falcon_h1": {**USUAL, "mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 12, "mamba_d_state": 8},
    "gemma3": {"text_config": USUAL, "vision_config": VISION, "mm_tokens_per_image": 4},
    "qwen2_5_vl": {"text_config": USUAL, "vision_config": QWEN_VISION},
}  # fmt: skip
WITH_VISION = {"gemma3", "qwen2_5_vl"}
NEEDS_TIMM = {"gemma3n"}
"""Built only with the package timm, which sftui does not install."""
NEVER_QUANTIZED = {"falcon"}
"""Their linear layers are of a class of their own, which transformers does not hand to bitsandbytes."""
MIXTURES = {"mixtral", "qwen3_moe", "deepseek_v3"}
STORED: list[dict[str, Any]] = [
    {},
    {"load_in_4bit": True, "use_bnb_nested_quant": False},
    {"load_in_4bit": True, "use_bnb_nested_quant": True},
    {"load_in_8bit": True},
]
Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Saves a tiny model of a type, once, with random weights in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from core.training.libraries import import_libraries

    import_libraries()
    folders: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in folders:
            auto = AutoModelForImageTextToText if model_type in WITH_VISION else AutoModelForCausalLM
            torch.manual_seed(0)
            model = auto.from_config(CONFIG_MAPPING[model_type](**TYPES[model_type]), dtype=torch.bfloat16)
            folders[model_type] = tmp_path_factory.mktemp(model_type)
            model.save_pretrained(folders[model_type])
        return folders[model_type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield make


def inventory(folder: Path, model_type: str) -> Inventory:
    from core.models.inventory import build_inventory

    auto_class = "AutoModelForImageTextToText" if model_type in WITH_VISION else "AutoModelForCausalLM"
    return cached_inventory(folder, auto_class) or build_inventory(folder, auto_class)  # type: ignore[arg-type]


def spec_of(folder: Path, **values: Any) -> RunSpec:
    return RunSpec.model_validate({"model_name_or_path": str(folder), "datasets": [{"path": "rows"}], **values})


def predict(found: Inventory, spec: RunSpec, dtype: str = "bfloat16", **changes: Any) -> MemoryEstimate:
    settings: dict[str, Any] = {
        "quantization": spec.quantization,
        "double_quant": spec.use_bnb_nested_quant,
        "dtype": dtype,
        "method": "lora",
        "lora_r": spec.lora_r,
        "lora_targets": "all-linear",
        "optimizer": "adamw_torch",
        "train_vision": spec.sftui.train_vision,
    }
    return estimate(weights_of(found), **settings | changes)


def load(folder: Path, spec: RunSpec, dtype: str = "bfloat16") -> Any:
    import torch
    import transformers

    from core.models.loading import quantization_config

    name = "AutoModelForImageTextToText" if any(f"{kind}0" in folder.name for kind in WITH_VISION) else None
    return getattr(transformers, name or "AutoModelForCausalLM").from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        quantization_config=quantization_config(spec, dtype),
        device_map={"": "cpu"},
    )


def held(model: Any) -> int:
    from core.models.loading import weight_bytes

    return weight_bytes(model)


@pytest.mark.parametrize("stored", STORED, ids=["bf16", "nf4", "nf4-double", "int8"])
@pytest.mark.parametrize("model_type", TYPES)
def test_what_is_loaded_and_what_is_adapted_is_predicted_exactly(
    made: Make, model_type: str, stored: dict[str, Any]
) -> None:
    from core.models.adapters import attach_adapters, trainable_parameters

    folder = made(model_type)
    spec = spec_of(folder, lora_r=3, lora_dropout=0.0, **stored)
    found = inventory(folder, model_type)
    predicted = predict(found, spec)
    model = load(folder, spec)
    weights, constants = (part.bytes for part in predicted.parts[:2])
    assert (weights or 0) + (constants or 0) == held(model)
    assert bool(constants) == bool(stored)
    assert predicted.exact
    if stored.get("use_bnb_nested_quant") is not False:
        adapted = attach_adapters(model, spec)
        assert predicted.trainable_parameters == trainable_parameters(adapted) > 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("model_type", ["deepseek_v3", "gemma3", "falcon_h1"])
def test_what_transformers_keeps_in_float32_is_counted_so(made: Make, model_type: str, dtype: str) -> None:
    folder = made(model_type)
    spec = spec_of(folder)
    assert predict(inventory(folder, model_type), spec, dtype).parts[0].bytes == held(load(folder, spec, dtype))


@pytest.mark.parametrize("model_type", sorted(WITH_VISION))
def test_the_vision_tower_is_adapted_when_it_is_trained(made: Make, model_type: str) -> None:
    from core.models.adapters import attach_adapters, trainable_parameters

    folder = made(model_type)
    frozen, trained = spec_of(folder, lora_r=3), spec_of(folder, lora_r=3, sftui={"train_vision": True})
    found = inventory(folder, model_type)
    assert {parameter.part for parameter in found.parameters} >= {"text", "vision"}
    counts = [predict(found, spec).trainable_parameters or 0 for spec in (frozen, trained)]
    assert counts[0] < counts[1] == trainable_parameters(attach_adapters(load(folder, trained), trained))


@pytest.mark.parametrize(
    ("model_type", "targets"),
    [
        ("qwen3", ["q_proj", "v_proj"]),
        ("qwen3", ["layers.1.mlp.up_proj"]),
        ("gpt2", ["c_attn"]),
        ("phi3", ["self_attn.qkv_proj"]),
        ("mixtral", ["q_proj", "down_proj"]),
        ("deepseek_v3", ["down_proj", "gate_proj"]),
    ],
)
def test_named_targets_are_counted_as_they_are_adapted(made: Make, model_type: str, targets: list[str]) -> None:
    from core.models.adapters import attach_adapters, trainable_parameters

    folder = made(model_type)
    spec = spec_of(folder, lora_r=3, lora_dropout=0.0, lora_target_modules=targets)
    predicted = predict(inventory(folder, model_type), spec, lora_targets=tuple(targets))
    assert predicted.trainable_parameters == trainable_parameters(attach_adapters(load(folder, spec), spec)) > 0


@pytest.mark.parametrize("model_type", sorted(MIXTURES))
def test_fused_experts_stay_in_16_bit_and_are_adapted(made: Make, model_type: str) -> None:
    experts = [one for one in inventory(made(model_type), model_type).parameters if one.kind == "experts"]
    assert experts
    assert all(len(one.shape) == 3 and one.adaptable and not one.quantizable for one in experts)


def test_an_inventory_is_kept_for_its_configuration_and_read_by_the_plan(made: Make) -> None:
    folder = made("qwen3")
    built = inventory(folder, "qwen3")
    assert cached_inventory(folder, "AutoModelForCausalLM") == built
    assert read_model(str(folder)).inventory == built
    assert cached_inventory(folder, "AutoModelForImageTextToText") is None
    kept = inventory_path(folder, "AutoModelForCausalLM")
    whole = kept.read_text()
    for damaged in ("", "[]", "{}", whole[: len(whole) // 2], whole.replace('"linear"', '"round"', 1)):
        kept.write_text(damaged)
        assert cached_inventory(folder, "AutoModelForCausalLM") is None
    assert read_model(str(folder)).inventory is None


def test_quantization_that_changes_nothing_is_told(tmp_path: Path) -> None:
    import transformers

    from core.devices.gpu import GpuMonitor
    from core.devices.host import read_host
    from core.models.inventory import build_inventory

    config = transformers.FalconConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=331)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    build_inventory(tmp_path, "AutoModelForCausalLM")
    spec, plain = spec_of(tmp_path, use_peft=True, load_in_4bit=True), spec_of(tmp_path, use_peft=True)
    model, gpus, host = read_model(str(tmp_path)), GpuMonitor().read(), read_host(tmp_path)
    told = [problem for problem in make_plan(spec, model, gpus, host).problems if problem.field == "load_in_4bit"]
    assert [(problem.level, "saves nothing" in problem.message) for problem in told] == [("warning", True)]
    assert not [problem for problem in make_plan(plain, model, gpus, host).problems if problem.field == "load_in_4bit"]
    assert predict(inventory(tmp_path, "falcon"), spec).parts[0].bytes == held(load(tmp_path, spec))


def test_a_model_that_cannot_be_built_is_told(tmp_path: Path) -> None:
    from core.models.inventory import build_inventory

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": 0}))
    with pytest.raises(SftuiError, match="cannot be built"):
        build_inventory(tmp_path, "AutoModelForCausalLM")


def test_every_language_model_type_has_an_inventory(made: Make) -> None:
    import math

    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from core.models.inventory import inventory_of

    types = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(REFUSED) - NEEDS_TIMM)
    assert len(types) > 130
    never_quantized = set()
    for model_type in types:
        config = small_config(model_type)
        found = inventory_of(config, "AutoModelForCausalLM")
        assert Inventory.from_json(json.loads(json.dumps(found.to_json()))) == found, model_type
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        own = [one for one in found.parameters if one.tied_to is None]
        real = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values()
        assert sum(one.elements for one in own) == sum(tensor.numel() for tensor in real), model_type
        adapted = [one for one in own if one.adaptable]
        quantized = [one for one in own if one.quantizable]
        assert adapted, f"{model_type} has nothing to adapt"
        if not quantized:
            never_quantized.add(model_type)
        assert all(one.kind in ("linear", "experts") for one in adapted), model_type
        assert all(one.kind == "linear" and len(one.shape) == 2 for one in quantized), model_type
        for one in adapted:
            experts = one.shape[0] if len(one.shape) == 3 else 1
            assert sum(one.lora_elements or ()) == experts * sum(one.shape[-2:]), f"{model_type}: {one.name}"
        assert any(one.kind == "embedding" for one in own), model_type
        assert all(math.prod(one.shape) for one in own if one.kind != "buffer"), model_type
    assert never_quantized == NEVER_QUANTIZED
