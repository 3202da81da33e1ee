"""Every test has its own home for runs, caches and settings, and none reaches the network."""

import gc
import os
from pathlib import Path

import pytest

_FIXED = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TEXTUAL_ANIMATIONS": "none"}
_UNSET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CUDA_VISIBLE_DEVICES")

# huggingface_hub and textual read these once, when they are imported: a fixture would come too late.
os.environ.update(_FIXED)

# Each full collection goes through all of torch too: a fifth of the time of a test that draws screens.
gc.set_threshold(*gc.get_threshold()[:2], 100)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own under which sftui and the Hugging Face libraries keep everything."""
    home = tmp_path / "home"
    for name, value in _FIXED.items():
        monkeypatch.setenv(name, value)
    for name in _UNSET:
        monkeypatch.delenv(name, raising=False)
    for name in ("DATA", "CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "huggingface" / "hub"))
    return home
