"""What PyTorch's allocator is told in a run, and what the user has told it already."""

import pytest

from core.devices.allocator import allocator_environment, segments_grow
from core.runs.launch import runner_environment


@pytest.mark.parametrize(
    ("environ", "grow"),
    [
        ({}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": ""}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128, expandable_segments:true"}, True),
        # The newer name goes first.
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, True),
        (
            {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
            False,
        ),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments"}, False),
    ],
)
def test_segments_grow_unless_the_user_has_set_something_else(environ: dict[str, str], grow: bool) -> None:
    assert segments_grow(environ) is grow
    # An empty value is as none at all.
    assert bool(allocator_environment(environ)) is not any(environ.values())


def test_a_runner_is_told_and_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")
    assert runner_environment()["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert runner_environment()["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"
    assert not runner_environment()["PYTORCH_CUDA_ALLOC_CONF"]
