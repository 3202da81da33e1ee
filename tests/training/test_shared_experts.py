"""What is trained of mixtures with shared experts and dense first layers is what PEFT loads again by itself."""

from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.spec.build import build_spec
from core.spec.run_spec import RunSpec
from tests.tiny import byte_tokenizer
from tests.training.runs import make_run
from tests.training.test_worker import only, train

USUAL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256, "num_experts_per_tok": 2,
         "moe_intermediate_size": 32}  # fmt: skip
GROUPED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
# Layer 0 is dense and layer 1 has a shared expert, but for Mixtral, which has neither.
TYPES: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**USUAL, "num_experts": 4, "shared_expert_intermediate_size": 48, "mlp_only_layers": [0]},
    "deepseek_v3": {**USUAL, **GROUPED, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16,
                    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    "glm4_moe": {**USUAL, **GROUPED, "head_dim": 16},
    "ernie4_5_moe": {**USUAL, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1,
                     "moe_layer_start_index": 1},
    "mixtral": {**USUAL, "num_local_experts": 4},
}  # fmt: skip
NF4 = {"load_in_4bit": True, "dtype": "float32"}
STORED = {"float32": {}, "nf4": NF4, "int8": {"load_in_8bit": True, "dtype": "float32"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Saves a tiny model of a type, once, in float32, with a tokenizer."""
    folders: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        import torch
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM

        if model_type not in folders:
            folders[model_type] = folder = tmp_path_factory.mktemp(model_type)
            tokenizer = byte_tokenizer()
            tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
                      "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**TYPES[model_type], **tokens))
                model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folders[model_type]

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


@pytest.mark.parametrize(
    ("stored", "targets"),
    [*((stored, "all-linear") for stored in STORED), ("float32", ["gate_proj", "up_proj", "down_proj"])],
    ids=[*STORED, "named"],
)
@pytest.mark.parametrize("model_type", TYPES)
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


@pytest.mark.parametrize("stored", ["float32", "nf4"])
def test_shared_experts_and_dense_layers_are_trained_and_trained_further(made: Any, rows: Path, stored: str) -> None:
    from safetensors.torch import load_file

    def run(**changes: Any) -> tuple[Any, dict[str, Any]]:
        folder = make_run(made("glm4_moe"), rows, max_steps=2, lora_dropout=0.0, activation_checkpointing=True,
                          **{**STORED[stored], **changes})  # fmt: skip
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
