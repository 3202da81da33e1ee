"""The embedded starter: a small chat model and a small dataset, so that a fresh machine can fine-tune offline."""

from pathlib import Path

_FOLDER = Path(__file__).parent

MODEL: Path = _FOLDER / "model"
TRAIN_DATA: Path = _FOLDER / "support.jsonl"
HELD_OUT_DATA: Path = _FOLDER / "held_out.jsonl"
