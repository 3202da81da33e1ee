"""Tests of this folder need an NVIDIA GPU, and are skipped without one. Each run has a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.devices.gpu import GpuSnapshot
from tests.gpu.on_gpu import gpus_now
from tests.tiny import build_tiny_model, write_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def cuda() -> None:
    """Skip all of it without a GPU, before models are made for it."""
    reading = gpus_now()
    if not reading.gpus:
        pytest.skip(f"no NVIDIA GPU: {reading.problem}")
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU, though the driver does")


@pytest.fixture
def gpu() -> GpuSnapshot:
    """The GPU that PyTorch calls the first, as the driver sees it now."""
    import torch

    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    return next(one for one in gpus_now().gpus if one.uuid == uuid)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Llama whose activations take gigabytes."""
    folder = tmp_path_factory.mktemp("wide") / "wide-llama"
    # In a process of its own, so that this one keeps nothing of it on the GPU.
    subprocess.run([sys.executable, "-m", "tests.gpu.random_models", "wide", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty conversations."""
    return write_rows(tmp_path / "rows.jsonl", 40)
