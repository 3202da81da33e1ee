"""How long a plan takes when an option has changed: what every key on the set-up screens waits for.

python -m tests.bench.plan [ROUNDS]        200 changes of each model by default

The inventories are made once, as the warm runner makes them; nothing is kept from one change to the next but what the
app keeps too. Everything is given in milliseconds and as a share of what reading the same options into a spec takes,
so that a busy machine does not matter.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from core.devices.gpu import GpuReading
from core.devices.host import read_host
from core.memory.plan import make_plan
from core.spec.build import build_spec
from tests.training.estimated import facts_of

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 8B": (
        "llama",
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 128256},
    ),
    "Llama 70B": (
        "llama",
        {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
         "num_key_value_heads": 8, "vocab_size": 128256},
    ),
    "Qwen3 30B-A3B": (
        "qwen3_moe",
        {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
         "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "vocab_size": 151936},
    ),
}  # fmt: skip
CHANGES: tuple[dict[str, Any], ...] = tuple(
    {"lora_r": rank, "per_device_train_batch_size": batch, "load_in_4bit": in_4_bit, "activation_checkpointing": again}
    for rank, batch, in_4_bit, again in itertools.product((8, 16, 64), (1, 2, 4), (True, False), (True, False))
)


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as place:
        from core.training.libraries import import_libraries

        import_libraries()
        from transformers import CONFIG_MAPPING

        gpus, host = GpuReading((), None, None), read_host(Path(place))
        for name, (model_type, values) in MODELS.items():
            folder = Path(place) / name
            CONFIG_MAPPING[model_type](**values).save_pretrained(folder)
            facts = facts_of(folder)
            options = {"model_name_or_path": str(folder), "use_peft": True, "datasets": [{"path": "rows"}]}
            for change in CHANGES:
                # Layers are traced when they are first asked for.
                make_plan(build_spec({**options, **change}), facts, gpus, host)
            specs, plans = [], []
            for change in itertools.islice(itertools.cycle(CHANGES), rounds):
                began = time.perf_counter()
                spec = build_spec({**options, **change})
                read = time.perf_counter()
                plan = make_plan(spec, facts, gpus, host)
                specs.append(read - began)
                plans.append(time.perf_counter() - read)
                assert plan.memory is not None
            middle, late = statistics.median(plans), sorted(plans)[int(0.99 * rounds)]
            times = middle / statistics.median(specs)
            print(
                f"{name:14} median {middle * 1000:.2f} ms, p99 {late * 1000:.2f} ms, {times:.1f} x reading the options"
            )


if __name__ == "__main__":
    main()
