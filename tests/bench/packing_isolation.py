"""Whether rows that are packed into one sequence see one another, for every causal model type of transformers.

python -m tests.bench.packing_isolation [TYPE…]     a line of JSON a type: {"type", "attention", "result", …}

Three rows go through the model alone and packed, in the batch of TRL's own collator. Then a token of the first row is
changed: "apart" is a model whose logits of the other rows stay as they are and are those of the rows alone.
"""

import gc
import json
import sys
import warnings
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tests.narrow_types import narrow_config
from tests.unit.test_all_architectures import REFUSED

CAUSAL = sorted(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in REFUSED)
IMAGE_TEXT = sorted({*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES} - {*CAUSAL, *REFUSED})
_MOST_PARAMETERS = 1_500_000_000
_ROWS = ([5, 9, 14, 23, 7, 31, 12], [8, 41, 6, 17, 29], [33, 10, 27, 19, 44, 16])
_SAME = 1e-3
"""Of the largest logit: what float32 may differ by, in another order of sums."""


def isolation(model: Any) -> str:
    """Return "apart", "mixes", or "differs": rows do not see one another, and are not as they are alone."""
    packed = _packed_logits(model, _ROWS)
    changed = _packed_logits(model, ([*_ROWS[0][:2], 20, *_ROWS[0][3:]], *_ROWS[1:]))
    first, last = len(_ROWS[0]), sum(map(len, _ROWS))
    scale = packed.abs().max()
    if (packed[first:] - changed[first:]).abs().max() > _SAME * scale:
        return "mixes"
    alone = torch.cat([_logits(model, {"input_ids": torch.tensor([row])}) for row in _ROWS[1:]])
    return "apart" if (packed[first:last] - alone).abs().max() <= _SAME * scale else "differs"


def _packed_logits(model: Any, rows: Any) -> torch.Tensor:
    ids = [token for row in rows for token in row]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": [len(row) for row in rows]}])
    del batch["labels"]
    return _logits(model, batch)


def _logits(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch, use_cache=False).logits[0].float()


def build(
    model_type: str, attention: str | None = None, auto_class: Any = AutoModelForCausalLM, narrower: int = 16
) -> Any:
    """A narrow model of the type with seeded weights, large enough that what is attended to matters."""
    config = narrow_config(model_type, narrower)
    with torch.device("meta"):
        outline = auto_class.from_config(config)
    if sum(parameter.numel() for parameter in outline.parameters()) > _MOST_PARAMETERS:
        raise ValueError("too large")
    torch.manual_seed(0)
    model = auto_class.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(3)
    return model


def measure(model_type: str, attention: str, auto_class: Any) -> dict[str, str]:
    """One line of the table; not every type can be made as narrow as the others."""
    line = {"type": model_type, "attention": attention}
    said: dict[str, str] = {}
    for narrower in (16, 8, 4):
        try:
            return {**line, "result": isolation(build(model_type, attention, auto_class, narrower))}
        except Exception as error:  # noqa: BLE001 - a type that refuses the batch is a line of the table
            said = said or {"result": "refuses", "error": f"{type(error).__name__}: {error}"[:200]}
            if "packed sequences" in str(error) or "does not support an attention" in str(error):
                break
    return {**line, **said}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = sys.argv[1:]
    for classes, names in ((AutoModelForCausalLM, CAUSAL), (AutoModelForImageTextToText, IMAGE_TEXT)):
        for chosen in asked or names:
            for kernel in ("sdpa", "eager") if chosen in names else ():
                print(json.dumps(measure(chosen, kernel, classes)), flush=True)
                gc.collect()
