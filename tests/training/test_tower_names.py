"""The towers beside a language model are told by the names of weights as by the model's own modules."""

import pytest

from core.models.tower_names import parts_by_name
from tests.every_type import small_config

FAMILIES = ("aria", "gemma3", "glm4v", "idefics3", "internvl", "kimi_k25", "lfm2_vl", "llama4", "llava",
            "mistral3", "mllama", "paligemma", "qwen2_5_vl", "qwen2_5_omni_thinker", "qwen3_vl",
            "smolvlm", "step3p7")  # fmt: skip


@pytest.mark.parametrize("model_type", FAMILIES)
def test_parts_are_told_by_names_as_by_modules(model_type: str) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    from core.models.inventory import _parts

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(small_config(model_type), dtype=torch.bfloat16)
    names = [name for name, weight in model.named_parameters() if weight.ndim == 2]
    by_module, by_name = _parts(model), parts_by_name(names)
    reads_text = {name for name in names if by_module(name.rpartition(".")[0]) == "text"}
    assert {name for name in names if by_name(name) == "text"} == reads_text
    assert reads_text < set(names)


LAYER = "layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("tower", "language"),
    [
        (["vision_tower.layers.0.q.weight", "multi_modal_projector.up.weight"], f"language_model.model.{LAYER}"),
        (["visual.blocks.0.attn.qkv.weight", "visual.merger.mlp.0.weight"], f"model.{LAYER}"),
        (["vision_model.blocks.0.w.weight", "mlp1.1.weight"], f"language_model.model.{LAYER}"),
        (["model.projector.layers.weight", "model.sam_model.blocks.0.w.weight"], f"model.{LAYER}"),
        (["patch_merger.merging_layer.weight", "vision_encoder.w.weight"], LAYER),
        (["audio_tower.layers.0.fc1.weight"], f"model.{LAYER}"),
    ],
)
def test_names_as_files_have_them_are_told_too(tower: list[str], language: str) -> None:
    part_of = parts_by_name([*tower, language, "lm_head.weight"])
    assert part_of(language) == part_of("lm_head.weight") == "text"
    assert "text" not in {part_of(name) for name in tower}
