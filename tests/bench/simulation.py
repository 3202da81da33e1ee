"""Simulations against real runs, every combination of the small families; and how long large models take.

python -m tests.bench.simulation [FAMILY …]
python -m tests.bench.simulation --large
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from core.memory.batch_shape import BatchShape
from core.models.architecture import detect
from core.models.loading import LoadRequest
from core.spec.run_spec import RunSpec
from core.training.libraries import import_libraries
from tests.families import FAMILIES, OTHERS, build_family
from tests.training.live_bytes import request_for, run_for_real, shape_of

HOW: dict[str, dict[str, Any]] = {"nf4": {"load_in_4bit": True}, "lora": {}, "full": {"use_peft": False}}
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}  # fmt: skip
LARGE: dict[str, dict[str, Any]] = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
LLAMA_2_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000,
}  # fmt: skip


def spec_of(model: Path, **values: Any) -> RunSpec:
    base = {
        "model_name_or_path": str(model), "datasets": [{"path": "rows"}], "use_peft": True, "dtype": "bfloat16",
        "gradient_accumulation_steps": 1, "per_device_train_batch_size": 2, "max_steps": 2, "lora_dropout": 0.1,
    }  # fmt: skip
    return RunSpec.model_validate({**base, **values})


def small(families: list[str], parent: Path) -> None:
    """Print what really is kept and held, and how far the simulation is off."""
    from core.memory.simulate import simulate

    print(f"{'family':14} {'how':5} {'ckpt':5} {'attn':6} {'batch':7} {'kept':>10} {'off':>8} {'peak':>10} {'off':>8}")
    options = itertools.product(families, HOW, (True, False), ("sdpa", "eager"), ("plain", "padded", "packed"))
    for number, (family, how, checkpointing, attention, batch) in enumerate(options):
        folder = parent / family
        if not folder.exists():
            build_family(family, folder)
        packed = {"packing": True, "per_device_train_batch_size": 1} if batch == "packed" else {}
        spec = spec_of(
            folder, activation_checkpointing=checkpointing, attn_implementation=attention, **packed, **HOW[how]
        )
        row = f"{family:14} {how:5} {checkpointing!s:5} {attention:6} {batch:7}"
        try:
            real = run_for_real(spec, batch, parent / f"run-{number}")
            found = simulate(spec, request_for(spec), shape_of(batch), on_gpu=False)
        except Exception as error:  # noqa: BLE001 - some combinations are none
            print(row, type(error).__name__, str(error)[:60].replace("\n", " "))
            continue
        off = (f"{mine / theirs - 1:+8.3%}" for mine, theirs in ((found.kept, real.kept), (found.peak, real.peak)))
        print(f"{row} {real.kept:10} {next(off)} {real.peak:10} {next(off)}", flush=True)


def large(parent: Path) -> None:
    """Print seconds and sizes of 4-bit LoRA on models without weights, as on a GPU."""
    from transformers import LlamaConfig

    points = [(name, shape, 1, 2048) for name, shape in LARGE.items()]
    points += [("8B", LARGE["8B"], 2, 2048)]
    points += [("Llama-2-7B", LLAMA_2_7B, 1, tokens << 10) for tokens in (1, 2, 4, 8, 16, 32)]
    for name, shape, rows, tokens in points:
        folder = parent / name
        LlamaConfig(**{**LLAMA, "num_key_value_heads": 8, **shape}).save_pretrained(folder)
        told(name, folder, rows, tokens)


def told(name: str, folder: Path, rows: int, tokens: int) -> None:
    """Print one point."""
    from core.memory.simulate import simulate

    request = LoadRequest(folder, detect(folder), "bfloat16", "sdpa", "cpu")
    began = time.process_time()
    found = simulate(
        spec_of(folder, load_in_4bit=True, lora_dropout=0.0), request,
        BatchShape(rows, tokens, rows * tokens, packed=False), on_gpu=True,
    )  # fmt: skip
    used = time.process_time() - began
    sizes = f"peak {found.peak / 2**30:6.2f} GiB, holes {found.allocator / 2**30:5.2f} GiB"
    print(f"{name:10} {rows} x {tokens:5}: {sizes}; {found.seconds:5.1f} s, {used:5.1f} s of a CPU", flush=True)


if __name__ == "__main__":
    import_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        if "--large" in sys.argv:
            large(Path(scratch))
        else:
            small(sys.argv[1:] or [*FAMILIES, *OTHERS], Path(scratch))
