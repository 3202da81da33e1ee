"""What others have published of memory, which nobody here tuned on, against the arithmetic.

LLaMA-Factory's table of hardware (https://github.com/hiyouga/LLaMA-Factory): QLoRA of a 7B model in 4 bits with
FlashAttention-2 and batch 1, in whole GB, taken for all that a GPU has to have. Its loss is transformers' own, which
makes all logits at once; TRL has a fused head. torchtune's QLoRA of an 8B model (https://github.com/pytorch/torchtune):
7.4 GiB at 2 × 2048, taken for what PyTorch allocated, without context and holes. It has an NF4 and a loss of its own;
which layers it adapted is not told: here it is queries and values.
"""

from pathlib import Path
from typing import Any

import pytest

from core.memory.batch_shape import BatchShape
from core.memory.estimate import MemoryEstimate
from core.models.architecture import detect
from core.spec.run_spec import RunSpec

GB, GIB = 10**9, 2**30
SEVEN = {"vocab_size": 32_000, "intermediate_size": 11_008, "num_key_value_heads": 32}
EIGHT = {"vocab_size": 128_256, "intermediate_size": 14_336, "num_key_value_heads": 8}


def planned(
    folder: Path, sizes: dict[str, Any], shape: BatchShape, *, attention: str, all_logits: bool, **values: Any
) -> MemoryEstimate:
    """The estimate of QLoRA with checkpointing on a GPU."""
    from core.training.libraries import import_libraries

    import_libraries()
    from transformers import AutoConfig, LlamaConfig

    from core.memory.spec_estimate import adapted_by, estimate_of
    from core.memory.step_parts import held_in_step, with_allocator, with_step
    from core.memory.weights import weights_of
    from core.models.inventory import inventory_of

    LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, max_position_embeddings=131_072,
        tie_word_embeddings=False, **sizes,
    ).save_pretrained(folder)  # fmt: skip
    loss: dict[str, Any] = {"label_smoothing_factor": 0.1} if all_logits else {}
    spec = RunSpec.model_validate(
        {"model_name_or_path": str(folder), "datasets": [{"path": "rows"}], "use_peft": True, "lora_r": 8,
         "load_in_4bit": True, "activation_checkpointing": True, "gradient_accumulation_steps": 8,
         "lora_dropout": 0.0, "extra_arguments": loss, **values}
    )  # fmt: skip
    architecture = detect(folder)
    weights = weights_of(inventory_of(AutoConfig.from_pretrained(folder), architecture.auto_class))
    memory = estimate_of(spec, weights, "bfloat16", None)
    assert memory is not None
    adapted = adapted_by(spec, weights)
    held = held_in_step(
        memory, spec, weights, architecture, adapted, dtype="bfloat16", attention=attention, shape=shape, on_gpu=True
    )
    memory = with_step(memory, spec, shape, held)
    return with_allocator(memory, held, on_gpu=True, segments_grow=False, simulation=None, calibration=None)


@pytest.mark.parametrize(
    ("tokens", "published"), [(1024, 6), (2048, 7), (4096, 9), (8192, 12), (16_384, 19), (32_768, 32)]
)
def test_llama_factorys_table_of_7b_qlora(tmp_path: Path, tokens: int, published: int) -> None:
    shape = BatchShape(1, tokens, tokens, packed=False)
    memory = planned(tmp_path, SEVEN, shape, attention="flash_attention_2", all_logits=True)
    # A whole GB is all that is told: half of one is no difference.
    assert memory.known_bytes / GB == pytest.approx(published, rel=0.1, abs=0.5)
    fused = planned(tmp_path, SEVEN, shape, attention="flash_attention_2", all_logits=False)
    assert fused.known_bytes < memory.known_bytes, "what TRL's fused head saves"


def test_torchtunes_8b_qlora(tmp_path: Path) -> None:
    memory = planned(
        tmp_path, EIGHT, BatchShape(2, 2048, 4096, packed=False), attention="sdpa", all_logits=False,
        lora_target_modules=["q_proj", "v_proj"], use_bnb_nested_quant=True,
    )  # fmt: skip
    allocated = sum(part.bytes or 0 for part in memory.parts if part.name != "allocator_and_context")
    assert allocated / GIB == pytest.approx(7.4, rel=0.1)
