"""Estimates against simulations of whole steps on a GPU, for models of 1 to 8 billion weights. See estimates.md.

python -m tests.bench.estimates
"""

import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from core.memory.batch_shape import BatchShape
from core.memory.step_parts import CONTEXT_BYTES, with_allocator
from core.models.architecture import detect
from core.models.loading import LoadRequest
from core.spec.run_spec import RunSpec
from core.training.libraries import import_libraries
from tests.gpu.random_models import MODELS
from tests.training.estimated import estimate_for

HOW: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "use_bnb_nested_quant": True},
    "int8": {"load_in_8bit": True},
    "dora": {"load_in_4bit": True, "use_dora": True},
    "lora": {},
    "full": {"use_peft": False},
    "full, 2 batches": {"use_peft": False, "gradient_accumulation_steps": 2},
    "nf4, offloaded": {"load_in_4bit": True, "extra_arguments": {"activation_offloading": True}},
}
# Model, how, rows × tokens, checkpointing.
CASES = (
    ("llama-3.1-8b", "nf4", 1, 512, True), ("llama-3.1-8b", "nf4", 1, 2048, True),
    ("llama-3.1-8b", "nf4", 4, 2048, True), ("llama-3.1-8b", "nf4", 1, 16384, True),
    ("llama-3.1-8b", "nf4", 2, 2048, False), ("llama-3.1-8b", "nf4, offloaded", 2, 2048, True),
    ("llama-3.1-8b", "nf4, offloaded", 2, 2048, False), ("llama-3.1-8b", "int8", 1, 4096, True),
    ("llama-3.1-8b", "dora", 1, 1024, True), ("llama-3.1-8b", "dora", 1, 1024, False),
    ("llama-3.1-8b", "lora", 4, 1024, True), ("llama-3.1-8b", "full", 1, 2048, True),
    ("qwen3-4b", "nf4", 2, 1024, True), ("qwen3-4b", "nf4", 8, 1024, False), ("qwen3-4b", "nf4", 1, 8192, True),
    ("qwen3-4b", "lora", 4, 4096, True), ("qwen3-4b", "int8", 2, 2048, False), ("qwen3-4b", "full", 1, 2048, True),
    ("qwen3-4b", "full, 2 batches", 1, 2048, True), ("gemma-3-1b", "nf4", 4, 1024, True),
    ("gemma-3-1b", "lora", 8, 1024, True), ("gemma-3-1b", "lora", 8, 1024, False),
    ("gemma-3-1b", "full", 4, 1024, True), ("gemma-3-1b", "full", 4, 1024, False),
    ("gemma-3-1b", "full, 2 batches", 4, 1024, True),
)  # fmt: skip


def main(scratch: Path) -> None:
    """Go through the cases."""
    from transformers import CONFIG_MAPPING

    from core.memory.simulate import simulate

    print("| model | how | rows × tokens | checkpointing | simulated GB | estimated | of it holes, MB | estimated |")
    print("|---|---|---|---|---|---|---|---|")
    errors = []
    for name, how, rows, tokens, checkpointing in CASES:
        folder = scratch / name
        if not folder.is_dir():
            values = dict(MODELS[name])
            CONFIG_MAPPING[values.pop("model_type")](**values, pad_token_id=0).save_pretrained(folder)
        spec = RunSpec.model_validate(
            {"model_name_or_path": str(folder), "datasets": [{"path": "rows"}], "use_peft": True, "dtype": "bfloat16",
             "attn_implementation": "sdpa", "gradient_accumulation_steps": 1, "per_device_train_batch_size": rows,
             "optim": "adamw_torch_fused", "activation_checkpointing": checkpointing, **HOW[how]}
        )  # fmt: skip
        shape = BatchShape(rows, tokens, rows * tokens, packed=False)
        request = LoadRequest(folder, detect(folder), "bfloat16", "sdpa", "cpu")
        simulation = simulate(spec, request, shape, on_gpu=True)
        memory, held = estimate_for(spec, shape, on_gpu=True, traced=True)
        whole = with_allocator(
            memory, held, on_gpu=True, segments_grow=True, simulation=None, calibration=None
        ).known_bytes
        real = simulation.peak + simulation.allocator
        errors.append((whole - CONTEXT_BYTES) / real - 1)
        holes = whole - CONTEXT_BYTES - memory.known_bytes
        print(
            f"| {name} | {how} | {rows} × {tokens:,} | {'on' if checkpointing else 'off'} | {real / 1e9:.2f} "
            f"| {errors[-1]:+.1%} | {simulation.allocator / 1e6:,.0f} | {holes / 1e6:,.0f} |",
            flush=True,
        )
    print(f"\nmean {fmean(map(abs, errors)):.1%}, worst {min(errors):+.1%} and {max(errors):+.1%}")


if __name__ == "__main__":
    import_libraries()
    with tempfile.TemporaryDirectory() as parent:
        main(Path(parent))
