"""Lets TRL offload the activations of a simulation: what lies on the host meanwhile is not counted."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from trl.models.activation_offloading import get_act_offloading_ctx_manager

from core.memory.simulated_gpu import replaced
from core.memory.simulated_memory import MemoryCount


class _Stream(torch.cpu.Stream):  # type: ignore[misc]
    def synchronize(self) -> None:
        """There is nothing to wait for."""


class _Device:
    """As much of a module like torch.cuda as offloading asks for."""

    Stream = _Stream

    def __init__(self, count: MemoryCount) -> None:
        self._count = count
        self._stream = _Stream()

    def current_stream(self) -> _Stream:
        """The one that computes."""
        return self._stream

    @contextlib.contextmanager
    def stream(self, _stream: Any) -> Iterator[None]:
        """Copy something: forwards to the host; backwards it is counted once it is looked at."""
        self._count.is_on_host = torch._C._current_autograd_node() is None
        yield
        self._count.is_on_host = False

    def empty_cache(self) -> None:
        """The allocator has nothing else to give its segments to."""


@contextlib.contextmanager
def offloading(model: Any, count: MemoryCount) -> Iterator[AbstractContextManager[Any]]:
    """What TRL puts around each training step of this model, of fake tensors on the CPU, as it would on a GPU."""
    device = _Device(count)
    # It knows tensors by where they lie, and adds how far inside.
    with (
        replaced(torch.UntypedStorage, "data_ptr", lambda storage: storage._cdata << 32),
        replaced(torch.Tensor, "record_stream", lambda _tensor, _stream: None),
    ):
        with (
            replaced(torch.accelerator, "current_accelerator", lambda: torch.device("cpu")),
            replaced(torch, "get_device_module", lambda _name: device),
        ):
            around = get_act_offloading_ctx_manager(model, use_pin_memory=False, warn_if_no_head=False)
        yield around
