"""Named starting points for a spec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core import starter

_ADAPTER: dict[str, Any] = {
    "use_peft": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": "all-linear",
    "learning_rate": 2e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_length": 2048,
}


@dataclass(frozen=True, slots=True)
class Preset:
    """Values to begin with."""

    name: str
    title: str
    help: str
    values: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "qlora",
            "QLoRA",
            "Adapters on a base model in 4 bit: the least memory.",
            {
                **_ADAPTER,
                "load_in_4bit": True,
                "load_in_8bit": False,
                "bnb_4bit_quant_type": "nf4",
                "use_bnb_nested_quant": True,
            },
        ),
        Preset(
            "lora",
            "LoRA",
            "Adapters on a base model in 16 bit: faster than QLoRA where it fits.",
            {**_ADAPTER, "load_in_4bit": False, "load_in_8bit": False},
        ),
        Preset(
            "full",
            "Full fine-tuning",
            "Every weight is trained: the most memory.",
            {
                "use_peft": False,
                "load_in_4bit": False,
                "load_in_8bit": False,
                "learning_rate": 2e-5,
                "lr_scheduler_type": "cosine",
                "warmup_steps": 0.03,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 4,
                "max_length": 2048,
            },
        ),
        Preset(
            "starter",
            "Starter",
            "The built-in model learns to write support tickets: about a minute on two CPU cores.",
            {
                "model_name_or_path": str(starter.MODEL),
                "datasets": [{"path": "json", "data_files": str(starter.TRAIN_DATA)}],
                "use_peft": True,
                "load_in_4bit": True,
                "load_in_8bit": False,
                "bnb_4bit_quant_type": "nf4",
                "use_bnb_nested_quant": True,
                "lora_target_modules": "all-linear",
                "lora_dropout": 0.0,
                "lora_r": 16,
                "lora_alpha": 32,
                "learning_rate": 5e-3,
                "per_device_train_batch_size": 16,
                "gradient_accumulation_steps": 1,
                "max_length": 128,
                "num_train_epochs": 2,
                # On most CPUs float32 is faster; on none, for matrices this small, is it slower.
                "dtype": "float32",
                "lr_scheduler_type": "cosine",
                "warmup_steps": 5,
                "activation_checkpointing": False,
                "assistant_only_loss": True,
                "eval_strategy": "epoch",
                # What the base model knows, for comparison.
                "eval_on_start": True,
                "save_strategy": "no",
                "sftui": {
                    "name": "starter",
                    "device": "cpu",
                    "held_out_file": str(starter.HELD_OUT_DATA),
                    "sample_rows": 20,
                },
            },
        ),
    )
}
