"""Model folders as tests need them: a config.json, and safetensors whose headers are true and whose data are zeros."""

import json
import struct
from pathlib import Path
from typing import Any

_SIZES = {"F32": 4, "BF16": 2, "U8": 1, "I8": 1}


def write_model(folder: Path, **config: Any) -> Path:
    """Write config.json into the folder, which is made, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_safetensors(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "BF16", cut: int = 0) -> None:
    """Write tensors of zeros by their shapes; the last `cut` bytes are left out."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = _SIZES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * (end - cut))


LLAMA: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 16),
    "model.layers.0.input_layernorm.weight": (8,),
    "lm_head.weight": (100, 8),
}
