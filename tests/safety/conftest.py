"""One tiny model for all tests of this folder: building it imports torch, and none of them changes it."""

from pathlib import Path

import pytest

from tests.tiny import build_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-llama")
