"""What a model and its adapters really hold is what the plan said, to the byte, under every option that changes it."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.devices.gpu import GpuReading
from core.devices.host import HostSnapshot
from core.memory.estimate import MemoryEstimate
from core.memory.plan import Plan, make_plan, read_model
from core.models.architecture import detect
from core.models.inventory_file import Inventory, keep_inventory
from core.models.remote_code import allow, find_remote_code
from core.spec.run_spec import RunSpec
from tests.families import build_family

QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "use_bnb_nested_quant": True},
    "int8": {"load_in_8bit": True},
    "bf16": {},
}
HOST = HostSnapshot(2, 0.0, 10**10, 10**10, 10**10, 10**10, "A CPU")
NO_GPU = GpuReading((), None, None)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, made once."""
    from core.training.libraries import import_libraries

    import_libraries()
    parent = tmp_path_factory.mktemp("families")

    def folder(family: str) -> Path:
        return parent / family if (parent / family).is_dir() else build_family(family, parent / family)

    return folder


def spec_of(model: Path, **values: Any) -> RunSpec:
    base = {"model_name_or_path": str(model), "datasets": [{"path": "rows"}], "use_peft": True, "dtype": "bfloat16"}
    return RunSpec.model_validate({**base, "lora_r": 3, "lora_dropout": 0.0, **values})


def planned(spec: RunSpec, *, exact: bool = True) -> Plan:
    model = read_model(spec.model_name_or_path)
    if exact and model.wants_inventory:
        keep_inventory(model.folder, inventory_of(model.folder))
        model = read_model(spec.model_name_or_path)
    assert (model.inventory is not None) == exact
    return make_plan(spec, model, NO_GPU, HOST)


@functools.cache
def inventory_of(folder: Path) -> Inventory:
    """What the model in the folder is made of, built once for all tests."""
    from core.models.inventory import build_inventory

    return build_inventory(folder, detect(folder).auto_class)


def figures(plan: Plan) -> dict[str, int]:
    assert plan.memory is not None
    return {part.name: part.bytes or 0 for part in plan.memory.parts}


def memory(plan: Plan) -> MemoryEstimate:
    assert plan.memory is not None
    return plan.memory


def loaded(spec: RunSpec, dtype: str = "bfloat16") -> Any:
    from core.models.loading import LoadRequest, load_model

    folder = Path(spec.model_name_or_path)
    return load_model(spec, LoadRequest(folder, detect(folder), dtype, None, "cpu"), lambda title, message: None)


def attached(model: Any, spec: RunSpec) -> Any:
    """The model with its adapters, as the trainer leaves them."""
    import torch

    from core.models.adapters import attach_adapters

    adapted = attach_adapters(model, spec)
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    return adapted


def hold_what_is_planned(spec: RunSpec) -> Any:
    """Load and attach for real, and compare every byte; returns the adapted model."""
    from core.models.adapters import trainable_parameters
    from core.models.loading import weight_bytes

    plan = planned(spec)
    assert [problem for problem in plan.problems if problem.level == "error"] == []
    parts = figures(plan)
    model = loaded(spec)
    base = parts["base_weights"] + parts["quantization_constants"]
    assert weight_bytes(model) == base
    adapted = attached(model, spec)
    assert weight_bytes(adapted) == base + parts["adapter_weights"]
    assert memory(plan).trainable_parameters == trainable_parameters(adapted) > 0
    trained = sum(parameter.nbytes for parameter in adapted.parameters() if parameter.requires_grad)
    assert parts["gradients"] == trained
    assert memory(plan).exact
    return adapted


def whole_in(family: str) -> list[str]:
    """The modules to be trained whole: embeddings and output head."""
    return ["embed_in", "lm_head"] if family == "gpt_neox" else ["embed_tokens", "lm_head"]


@pytest.mark.parametrize(
    ("family", "stored"),
    [
        ("llama", "bf16"),
        ("llama", "nf4"),
        ("qwen3", "int8"),
        ("gemma3_text", "nf4"),
        ("gpt_neox", "int8"),
        ("mixtral", "nf4"),
        ("llava", "int8"),
    ],
)
def test_skipped_and_wholly_trained_modules_take_what_is_planned(
    model_of: Callable[[str], Path], family: str, stored: str
) -> None:
    skipped = ["layers.0", "dense_4h_to_h", "o_proj"]
    adapted = hold_what_is_planned(
        spec_of(
            model_of(family),
            lora_modules_to_save=whole_in(family),
            sftui={"skip_modules": skipped},
            **QUANTIZATIONS[stored],
        )
    )
    wrapped = {type(module).__name__ for module in adapted.modules()}
    assert "ModulesToSaveWrapper" in wrapped
    if stored != "bf16":
        # Skipping less takes less; the names above did keep layers back.
        plain, kept = (
            figures(planned(spec_of(model_of(family), sftui={"skip_modules": names}, **QUANTIZATIONS[stored])))
            for names in ([], skipped)
        )
        assert plain["base_weights"] < kept["base_weights"]


@pytest.mark.parametrize(
    ("family", "whole"),
    [
        ("llama", ["norm"]),
        ("llama", ["lm_head"]),
        ("llama", ["layers.1"]),
        ("qwen3", ["lm_head"]),
        ("qwen3", ["embed_tokens", "self_attn"]),
        ("qwen3", ["down_proj"]),
        ("mixtral", ["experts"]),
        ("mixtral", ["layers.1"]),
        ("glm4_moe", ["shared_experts"]),
        ("glm4_moe", ["mlp"]),
    ],
)
def test_modules_of_every_kind_are_copied_once_and_get_no_adapter_besides(
    model_of: Callable[[str], Path], family: str, whole: list[str]
) -> None:
    quantized = {"load_in_4bit": True, "sftui": {"skip_modules": [r"model\.layers"]}} if "layers.1" in whole else {}
    hold_what_is_planned(spec_of(model_of(family), lora_modules_to_save=whole, **quantized))


@pytest.mark.parametrize(
    ("family", "stored"),
    [("llama", "nf4"), ("qwen3", "int8"), ("gemma3_text", "bf16"), ("gpt_neox", "nf4"), ("mixtral", "int8")],
)
def test_an_adapter_to_start_from_takes_what_its_file_holds(
    model_of: Callable[[str], Path], tmp_path: Path, family: str, stored: str
) -> None:
    dora = family in ("llama", "gpt_neox")
    made = spec_of(
        model_of(family),
        lora_r=5,
        lora_modules_to_save=whole_in(family)[:1],
        use_dora=dora,
        lora_target_modules=["dense"] if family == "gpt_neox" else ["q_proj", "down_proj"],
    )
    from core.models.adapters import attach_adapters

    attach_adapters(loaded(made), made).save_pretrained(tmp_path)
    # Its own rank, targets and whole modules hold, not the spec's.
    spec = spec_of(model_of(family), lora_r=64, sftui={"start_from_adapter": str(tmp_path)}, **QUANTIZATIONS[stored])
    hold_what_is_planned(spec)
    plan = planned(spec)
    assert {choice.name: choice.value for choice in plan.choices}["lora_r"] == "5"
    assert "rank 5" in memory(plan).parts[2].basis


@pytest.mark.parametrize(("biases", "stored"), [("all", "nf4"), ("lora_only", "bf16")])
def test_biases_that_an_adapter_trains_are_counted(
    model_of: Callable[[str], Path], tmp_path: Path, biases: str, stored: str
) -> None:
    from peft import LoraConfig, get_peft_model

    spec = spec_of(model_of("gpt_neox"))
    made = get_peft_model(loaded(spec), LoraConfig(r=2, target_modules=["dense"], bias=biases, task_type="CAUSAL_LM"))
    made.save_pretrained(tmp_path)
    start = {"start_from_adapter": str(tmp_path)}

    adapted = hold_what_is_planned(spec_of(model_of("gpt_neox"), sftui=start, **QUANTIZATIONS[stored]))

    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad and "bias" in name]
    assert len(trained) == (2 if biases == "lora_only" else 2 * 6 + 1)


SHARED, EXPERTS = "shared_experts.gate_proj", "experts.down_proj"


@pytest.mark.parametrize(
    ("values", "has", "has_not"),
    [
        ({}, {SHARED, EXPERTS}, set()),
        ({"use_dora": True}, {"q_proj"}, {SHARED, EXPERTS}),
        ({"sftui": {"init_lora_weights": "olora"}}, {"q_proj"}, {SHARED, EXPERTS}),
        ({"lora_target_parameters": []}, {SHARED}, {EXPERTS}),
        ({"lora_target_modules": ["q_proj", "down_proj"]}, {"shared_experts.down_proj", EXPERTS}, {SHARED}),
        ({"lora_target_modules": [SHARED]}, {SHARED}, {EXPERTS, "mlp.gate_proj"}),
        ({"lora_target_modules": ["mlp.down_proj"]}, {"mlp.down_proj"}, {EXPERTS}),
        ({"lora_target_modules": ["mlp.experts"]}, {EXPERTS}, {SHARED}),
        ({"lora_target_modules": ["experts.0.down_proj"]}, {EXPERTS}, {"experts.gate_up_proj", "mlp.down_proj"}),
        ({"lora_target_modules": ["q_proj"], "lora_target_parameters": [EXPERTS], "load_in_4bit": True},
         {"q_proj", EXPERTS}, {SHARED}),
    ],
    # Sorted: each test process orders a set in its own way, and pytest-xdist wants one id from all of them.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)  # fmt: skip
def test_what_is_named_of_a_mixture_is_adapted_and_planned(
    model_of: Callable[[str], Path], values: dict[str, Any], has: set[str], has_not: set[str]
) -> None:
    from core.models.targets import choose_targets

    spec = spec_of(model_of("glm4_moe"), lora_dropout=0.1, **values)
    adapted = hold_what_is_planned(spec)
    chosen = {choice.name: choice for choice in planned(spec).choices}
    by_weight = adapted.peft_config["default"].target_parameters
    assert ("lora_dropout" in chosen) == bool(by_weight)
    assert adapted.peft_config["default"].lora_dropout == (0 if by_weight else 0.1)
    targets = choose_targets(loaded(spec), spec)
    names = [*targets.modules, *(name.removesuffix(".weight") for name in targets.parameters)]
    assert {end for end in has | has_not if any(name.endswith(f".{end}") for name in names)} == has
    if not has & {EXPERTS} and by_weight:
        assert "by its weight" in chosen["lora_dropout"].reason
    if "use_dora" in values:
        assert "PEFT has no DoRA" in chosen["lora_target_modules"].reason


@pytest.mark.parametrize(
    ("family", "stored", "kept"), [("longcat_flash", "nf4", "classifier"), ("mamba", "int8", "dt_proj")]
)
def test_what_a_model_multiplies_by_itself_stays_as_it_is(
    model_of: Callable[[str], Path], family: str, stored: str, kept: str
) -> None:
    import torch

    spec = spec_of(model_of(family), **QUANTIZATIONS[stored])
    adapted = hold_what_is_planned(spec)
    assert {choice.name: choice.value for choice in planned(spec).choices}["sftui.skip_modules"] == kept
    layers = [module for name, module in adapted.named_modules() if name.endswith(kept)]
    assert {type(layer) for layer in layers} == {torch.nn.Linear}
    ids = torch.arange(3, 13)[None]
    assert adapted.eval()(input_ids=ids, labels=ids).loss.isfinite()


def test_a_router_that_is_named_is_adapted_and_planned(model_of: Callable[[str], Path]) -> None:
    hold_what_is_planned(spec_of(model_of("qwen2_moe"), lora_target_modules=["shared_expert_gate", "q_proj"]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lora_target_modules": ["qproj"]}, "no such module"),
        ({"lora_target_modules": ["q_proj", "norm"]}, "no layer that an adapter can be put on"),
        ({"lora_target_modules": ["lm_head"]}, "output head"),
        ({"lora_target_modules": ["experts"], "use_dora": True}, "PEFT has no DoRA"),
        ({"lora_target_modules": ["shared_experts.up_proj"], "use_dora": True}, "nothing that LoRA can adapt"),
        ({"lora_target_parameters": ["experts.down"]}, "no such matrix"),
        ({"lora_target_parameters": ["q_proj.weight"], "load_in_4bit": True}, "no such matrix"),
        ({"lora_target_parameters": ["q_proj.weight"]}, "as a whole already"),
        ({"lora_target_parameters": ["experts.down_proj"], "use_dora": True}, "PEFT has no DoRA"),
    ],
    ids=str,
)
def test_targets_that_the_run_would_refuse_are_problems_of_the_plan(
    model_of: Callable[[str], Path], values: dict[str, Any], words: str
) -> None:
    from core.errors import SftuiError

    spec = spec_of(model_of("glm4_moe"), **values)
    problems = [problem for problem in planned(spec).problems if problem.level == "error"]
    assert len(problems) == 1
    assert words in str(problems[0])
    assert problems[0].field in ("lora_target_modules", "lora_target_parameters")
    with pytest.raises(SftuiError):
        attached(loaded(spec), spec)


def test_the_trainer_casts_what_the_plan_says(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from core.models.adapters import attach_adapters
    from core.models.loading import weight_bytes

    folder = model_of("llama")
    spec = spec_of(folder, load_in_4bit=True, use_dora=True, lora_modules_to_save=["lm_head"])
    parts = figures(planned(spec))
    trainer = SFTTrainer(
        model=attach_adapters(loaded(spec), spec),
        args=SFTConfig(
            output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, activation_checkpointing=False
        ),
        train_dataset=Dataset.from_dict({"text": ["a row"]}),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    held = parts["base_weights"] + parts["quantization_constants"] + parts["adapter_weights"]
    assert weight_bytes(trainer.model) == held


@pytest.mark.parametrize(("family", "bits"), [("qwen3", 4), ("mixtral", 4), ("gpt_neox", 8), ("llava", 8)])
def test_a_stored_quantized_checkpoint_takes_what_its_files_say(
    model_of: Callable[[str], Path], tmp_path: Path, family: str, bits: int
) -> None:
    import torch
    import transformers

    how = transformers.BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_use_double_quant=family != "qwen3"
    )
    auto_class = getattr(transformers, detect(model_of(family)).auto_class)
    stored = auto_class.from_pretrained(
        str(model_of(family)), quantization_config=how, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    stored.save_pretrained(tmp_path)
    for file in model_of(family).glob("*token*"):
        shutil.copy(file, tmp_path)
    spec = spec_of(tmp_path, lora_modules_to_save=whole_in(family)[:1])

    guess = planned(spec, exact=False)
    hold_what_is_planned(spec)

    # Loaded in float32, what is not quantized and no `weight` is turned into it.
    parts = figures(make_plan(spec_of(tmp_path, dtype="float32"), read_model(str(tmp_path)), NO_GPU, HOST))
    from core.models.loading import weight_bytes

    assert parts["base_weights"] + parts["quantization_constants"] == weight_bytes(loaded(spec, "float32"))
    exact = planned(spec)
    assert "as stored in bitsandbytes" in memory(guess).parts[0].basis
    assert figures(guess)["quantization_constants"] == figures(exact)["quantization_constants"] > 0
    if family != "mixtral":
        assert memory(guess).trainable_parameters == memory(exact).trainable_parameters
        # Buffers are in no file.
        assert 0 <= figures(exact)["base_weights"] - figures(guess)["base_weights"] <= 256
    assert exact.verdict == "fits"


def test_allowed_code_of_a_model_builds_its_inventory_and_changed_code_does_not(
    model_of: Callable[[str], Path], tmp_path: Path
) -> None:
    import json

    from core.errors import SftuiError
    from core.models.inventory import build_inventory

    model = tmp_path / "own"
    shutil.copytree(model_of("llama"), model)
    canary = tmp_path / "canary"
    (model / "modeling_own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(canary)!r}).touch()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own_llama'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    config = json.loads((model / "config.json").read_text())
    classes = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    config |= {"model_type": "own_llama", "auto_map": classes, "architectures": ["OwnModel"]}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(SftuiError, match="runs its own code"):
        build_inventory(model, "AutoModelForCausalLM")
    assert not canary.exists()

    remote = find_remote_code(model, config)
    assert remote is not None
    allow(remote)
    hold_what_is_planned(spec_of(model, load_in_4bit=True))
    assert canary.exists()

    canary.unlink()
    with (model / "modeling_own.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(SftuiError, match="runs its own code"):
        build_inventory(model, "AutoModelForCausalLM")
    assert not canary.exists()


def test_fused_experts_turn_dropout_off_before_the_run(model_of: Callable[[str], Path]) -> None:
    def chosen(**values: Any) -> str | None:
        plan = planned(spec_of(model_of("mixtral"), lora_dropout=0.1, **values))
        return {choice.name: choice.value for choice in plan.choices}.get("lora_dropout")

    assert chosen() == "0"
    assert chosen(lora_target_modules=["q_proj", "w1"]) == "0"
    assert chosen(lora_target_modules=["q_proj"]) is None
    assert chosen(use_dora=True) is None
    assert chosen(use_peft=False) is None
