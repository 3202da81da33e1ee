"""What gets an adapter, for every language model type that transformers has, on models of two layers, on no device."""

import re
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from core.choice import Choice
from core.errors import SftuiError
from core.models.adapters import adapted_modules, attach_adapters, freeze_towers, trainable_parameters
from core.models.layers import refused_by_peft
from core.models.targets import Targets, choose_targets, claimed_by_peft
from core.spec.build import build_spec
from core.spec.run_spec import RunSpec
from tests.every_type import small_config
from tests.unit.test_all_architectures import REFUSED

TYPES = sorted(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in REFUSED)
NEEDS_TIMM = {"gemma3n"}
# Every linear layer of a language model that all-linear leaves alone is one of these.
LEFT_ALONE = re.compile(
    r"(^|\.)(lm_head|embed_out|output_projection|generator_lm_head|decoder|head|output)$"  # from the last hidden state
    r"|^lm_head\.dense$|(^|\.)patcher\."
    r"|(^|\.)(gate|shared_expert_gate|[a-z_]*router)(\.|$)"
    r"|\.indexer\.|\.o_a_proj$"
    r"|\.(mamba|mixer)\.(out_proj|x_proj|dt_proj)$"
    r"|vision|image|audio|visual|multi_modal"
)
CLAIMED_MIXTURES = {"afmoe", "beam", "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5_moe", "glm4_moe",
                    "hunyuan_v1_moe", "longcat_flash", "qwen3_next", "solar_open"}  # fmt: skip
WITH_VISION = ("gemma3", "idefics3", "llava", "mllama", "qwen2_5_vl")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def spec_of(**values: Any) -> RunSpec:
    return build_spec({"model_name_or_path": "m", "datasets": ["rows"], "use_peft": True, "lora_r": 4, **values})


def build(model_type: str, auto: Any = AutoModelForCausalLM) -> Any:
    with torch.device("meta"):
        return auto.from_config(small_config(model_type))


def attach(model: Any, spec: RunSpec) -> tuple[Any, list[Choice]]:
    told: list[Choice] = []
    with torch.device("meta"):
        return attach_adapters(model, spec, told.append), told


def adapted(model: Any) -> tuple[set[str], set[str]]:
    """Full names of the modules and of the parameters that bear an adapter."""
    modules, parameters = set(), set()
    for name, module in model.named_modules():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if isinstance(module, ParamWrapper):
            parameters.add(f"{plain}.{module.parameter_name}")
        elif isinstance(module, LoraLayer):
            modules.add(plain)
    return modules, parameters


def by_their_weights(model: Any, targets: Targets) -> set[str]:
    """The layers among the weights that PEFT takes one by one; the others are fused experts."""
    owners = {name.rpartition(".")[0] for name in targets.parameters}
    return {name for name in owners if isinstance(model.get_submodule(name), nn.Linear)}


def width(model: Any, targets: Targets) -> int:
    """Inputs and outputs of all that is adapted, as its weights' shapes say."""
    sides = 0
    for name in targets.modules:
        sides += sum(model.get_submodule(name).weight.shape)
    for name in targets.parameters:
        shape = model.get_parameter(name).shape
        sides += (shape[0] if len(shape) == 3 else 1) * sum(shape[-2:])
    return sides


@pytest.mark.parametrize("model_type", TYPES)
def test_all_linear_adapts_what_it_says_and_nothing_that_cannot_learn(model_type: str) -> None:
    if model_type in NEEDS_TIMM:
        pytest.skip("its vision tower is built by timm, which is not installed")
    model = build(model_type)
    spec = spec_of()
    targets = choose_targets(model, spec)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}

    layers = {*targets.modules, *by_their_weights(model, targets)}
    assert targets.modules
    assert layers <= linear
    head = model.get_output_embeddings()
    assert all(model.get_submodule(name) is not head for name in layers)
    assert not {name.rsplit(".", 1)[-1] for name in layers} & refused_by_peft(model_type)
    assert [name for name in linear - layers if not LEFT_ALONE.search(name)] == []
    assert [name for name in layers if LEFT_ALONE.search(name) and not name.endswith(".output")] == []

    expected = 4 * width(model, targets)
    wrapped, told = attach(model, spec)

    assert adapted(wrapped) == (set(targets.modules), set(targets.parameters))
    assert trainable_parameters(wrapped) == expected
    assert told[0].reason == targets.reason
    assert adapted_modules(wrapped)


@pytest.mark.parametrize("model_type", sorted(CLAIMED_MIXTURES))
def test_what_peft_would_take_for_experts_is_adapted_by_its_weight_and_that_is_said(model_type: str) -> None:
    model = build(model_type)
    claimed = claimed_by_peft(model_type)
    targets = choose_targets(model, spec_of())

    layers = by_their_weights(model, targets)

    assert layers
    assert {name.rsplit(".", 1)[-1] for name in layers} == {"gate_proj", "up_proj", "down_proj"}
    assert not [name for name in targets.modules if name.rsplit(".", 1)[-1] in claimed]
    assert {"gate_proj.weight", "up_proj.weight", "down_proj.weight"} <= set(targets.match_parameters)
    assert "by their weights, since PEFT takes these names for the experts" in targets.reason
    assert "left out" not in targets.reason
    assert {"gate_proj", "up_proj", "down_proj"} <= set(adapted_modules(attach(model, spec_of())[0]))


@pytest.mark.parametrize("model_type", ["mixtral", "minimax", "qwen3_moe", "olmoe"])
def test_where_nothing_is_shared_nothing_is_said_of_it(model_type: str) -> None:
    model = build(model_type)
    targets = choose_targets(model, spec_of())
    assert claimed_by_peft(model_type)
    assert by_their_weights(model, targets) == set()
    assert "PEFT takes" not in targets.reason


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["gate_proj"], ("experts.gate_up_proj", "gate_proj.weight")),
        (["q_proj", "gate_proj", "up_proj", "down_proj"],
         ("down_proj.weight", "experts.down_proj", "experts.gate_up_proj", "gate_proj.weight", "up_proj.weight")),
    ],
)  # fmt: skip
def test_layers_that_peft_would_take_for_experts_are_adapted_by_name_too(
    names: list[str], expected: tuple[str, ...]
) -> None:
    model = build("glm4_moe")
    targets = choose_targets(model, spec_of(lora_target_modules=names))
    assert {name.rsplit(".", 1)[-1] for name in targets.modules} == set(names) & {"q_proj"}
    assert targets.match_parameters == expected
    assert adapted(attach(model, spec_of(lora_target_modules=names))[0]) == (
        set(targets.modules),
        set(targets.parameters),
    )


def test_without_its_experts_a_mixture_keeps_its_shared_ones() -> None:
    model = build("glm4_moe")
    spec = spec_of(lora_target_parameters=[], lora_dropout=0.1)
    targets = choose_targets(model, spec)
    assert targets.match_parameters == ("down_proj.weight", "gate_proj.weight", "up_proj.weight")
    _, told = attach(model, spec)
    assert [choice.value for choice in told if choice.name == "lora_dropout"] == ["0"]
    assert "fused experts" not in "".join(choice.reason for choice in told)


def test_layers_that_peft_would_take_for_experts_are_left_where_it_has_no_such_start() -> None:
    model = build("glm4_moe")
    targets = choose_targets(model, spec_of(use_dora=True))
    assert targets.parameters == ()
    assert {name.rsplit(".", 1)[-1] for name in targets.modules} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert "shared_experts.up_proj left out: PEFT takes these names for the experts" in targets.reason
    assert "no DoRA for them" in targets.reason


def test_experts_are_adapted_in_one_piece_and_their_router_is_not() -> None:
    model = build("qwen2_moe")
    targets = choose_targets(model, spec_of())
    assert targets.match_parameters == ("experts.down_proj", "experts.gate_up_proj")
    assert len(targets.parameters) == 4
    assert not [name for name in (*targets.modules, *targets.parameters) if name.endswith((".gate", "gate.weight"))]
    assert "routers" in targets.reason
    _, told = attach(model, spec_of(lora_dropout=0.1))
    assert [(choice.name, choice.value) for choice in told[1:]] == [("lora_dropout", "0")]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"use_dora": True}, "no DoRA for them"),
        ({"sftui": {"init_lora_weights": "pissa"}}, "no pissa start for them"),
    ],
)
def test_experts_are_left_alone_where_peft_cannot_adapt_them_so(values: dict[str, Any], why: str) -> None:
    model = build("mixtral")
    targets = choose_targets(model, spec_of(**values))
    assert targets.parameters == ()
    assert targets.modules
    assert why in targets.reason
    with pytest.raises(SftuiError, match=why):
        choose_targets(model, spec_of(lora_target_modules=["q_proj", "experts"], **values))


def test_experts_can_be_left_out_or_named() -> None:
    model = build("mixtral")
    assert choose_targets(model, spec_of(lora_target_parameters=[])).parameters == ()
    down = choose_targets(model, spec_of(lora_target_parameters=["experts.down_proj"]))
    assert {name.rpartition(".")[2] for name in down.parameters} == {"down_proj"}
    # As adapters for older transformers name them.
    for names in (["q_proj", "w1", "w2", "w3"], ["q_proj", "experts"]):
        targets = choose_targets(model, spec_of(lora_target_modules=names))
        assert {name.rsplit(".", 1)[-1] for name in targets.modules} == {"q_proj"}
        assert len(targets.parameters) == 4


@pytest.mark.parametrize(
    ("model_type", "modules", "expected"),
    [
        ("phi3", "all-linear", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("gpt2", "all-linear", {"c_attn", "c_proj", "c_fc"}),
        ("falcon_h1", "all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "gate_proj", "up_proj",
                                     "down_proj"}),
        ("mamba", "all-linear", {"in_proj"}),
        ("llama", ["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        ("llama", ["model.layers.0.self_attn.q_proj"], {"q_proj"}),
        ("llama4_text", ["router"], {"router"}),
    ],
)  # fmt: skip
def test_targets_by_name(model_type: str, modules: Any, expected: set[str]) -> None:
    model = build(model_type)
    targets = choose_targets(model, spec_of(lora_target_modules=modules, lora_target_parameters=[]))
    assert {name.rsplit(".", 1)[-1] for name in targets.modules} == expected
    if modules == ["model.layers.0.self_attn.q_proj"]:
        assert targets.modules == tuple(modules)
        assert adapted(attach(model, spec_of(lora_target_modules=modules))[0])[0] == set(modules)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lora_target_modules": ["q_prj"]}, "Did you mean q_proj"),
        ({"lora_target_modules": ["q_proj", "no_such"]}, "names no_such, and the model has no such module"),
        ({"lora_target_modules": ["input_layernorm"]}, "no layer that an adapter can be put on"),
        ({"lora_target_parameters": ["experts.down"]}, "no such matrix in full precision"),
        ({"lora_target_parameters": ["q_prj.weight"]}, "Did you mean q_proj.weight"),
        ({"lora_modules_to_save": ["embeding"]}, "lora_modules_to_save names embeding"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_what_is(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SftuiError) as caught:
        attach(build("llama"), spec_of(**values))
    assert words in str(caught.value)
    assert "q_proj" in caught.value.hint or "embed_tokens" in caught.value.hint


def test_a_weight_is_not_adapted_twice() -> None:
    with pytest.raises(SftuiError, match="as a whole already"):
        choose_targets(build("llama"), spec_of(lora_target_parameters=["q_proj.weight"]))


def test_a_head_is_refused_under_whatever_name() -> None:
    with pytest.raises(SftuiError, match="output head"):
        choose_targets(build("gpt_neox_japanese"), spec_of(lora_target_modules=["embed_out"]))


@pytest.mark.parametrize("model_type", WITH_VISION)
def test_the_vision_tower_and_its_projector_are_trained_only_when_asked_for(model_type: str) -> None:
    tower = re.compile(r"vision|visual|connector|multi_modal_projector")
    model = build(model_type, AutoModelForImageTextToText)

    frozen = choose_targets(model, spec_of())
    both = choose_targets(model, spec_of(sftui={"train_vision": True}))

    assert [name for name in frozen.modules if tower.search(name)] == []
    assert "vision tower and projector" in frozen.reason
    added = set(both.modules) - set(frozen.modules)
    assert set(frozen.modules) < set(both.modules)
    assert all(tower.search(name) for name in added)
    assert adapted(attach(model, spec_of())[0])[0] == set(frozen.modules)


@pytest.mark.parametrize("train_vision", [False, True])
def test_full_fine_tuning_freezes_the_tower_too(train_vision: bool) -> None:
    model = build("llava", AutoModelForImageTextToText)
    freeze_towers(model, spec_of(use_peft=False, sftui={"train_vision": train_vision}))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("model.vision_tower.") for name in trained) == train_vision
    assert any("multi_modal_projector" in name for name in trained) == train_vision
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= trained


def test_an_audio_tower_is_never_trained() -> None:
    model = build("phi4_multimodal")
    targets = choose_targets(model, spec_of(sftui={"train_vision": True}))
    assert any("image" in name for name in targets.modules)
    assert not any("audio" in name or "speech" in name for name in targets.modules)
