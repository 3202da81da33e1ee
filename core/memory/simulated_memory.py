"""Counts the bytes of fake tensors as they come and go, and answers what only real ones could."""

import weakref
from collections import Counter
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.memory.allocator_model import AllocatorModel, Block, GrowingAllocator, HostAllocator

Part = Literal["fixed", "batch", "body", "head", "optimizer"]

_aten = torch.ops.aten
_bitsandbytes = torch.ops.bitsandbytes
_ASKS_FOR_A_VALUE = (_aten._local_scalar_dense.default, _aten.is_nonzero.default, _aten.equal.default)
_ASKS_FOR_THE_DEVICE = torch.ops.prim.device.default
_INDEX_BYTES = 8


class MemoryCount(TorchDispatchMode):  # type: ignore[misc]
    """While it is on, every storage that an operation makes is a block of an allocator, until it dies.

    Goes above a FakeTensorMode. `part` says what the storages made now belong to. `selected` is how many tokens are
    trained: fake tensors have no values, so whoever selects those by a mask gets as many. `masks_are_plain` is the
    answer to whether a condition holds for all of a mask: that there is no padding, or one sequence a row. On a GPU
    the allocator's segments may be such that grow.
    """

    def __init__(self, selected: int, *, masks_are_plain: bool, on_gpu: bool, grows: bool = True) -> None:
        super().__init__()
        self.part: Part = "fixed"
        self.is_on_host = False
        """Whether what is made now lies elsewhere. It is counted when an operation takes it from there."""
        self.used_twice: Collection[torch.Size] = ()
        """Shapes of weights that a step uses in two places, such as a table that is the output head too."""
        self.live: Counter[str] = Counter()
        """Bytes by part."""
        self.at_peak: Counter[str] = Counter()
        self.allocator = HostAllocator() if not on_gpu else GrowingAllocator() if grows else AllocatorModel()
        self._blocks: dict[int, tuple[weakref.ref[Any], Block, Part, int]] = {}
        self._selected = selected
        self._masks_are_plain = masks_are_plain

    def take(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, if it is not counted yet."""
        if self.is_on_host:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._blocks or not (size := storage.nbytes()):
            return
        block, part = self.allocator.allocate(size), self.part
        reference = weakref.ref(storage, lambda _: self._drop(key))
        self._blocks[key] = reference, block, part, size
        self.live[part] += block.size
        self._look()

    def exact(self, *parts: Part) -> int:
        """The bytes that these parts asked for, before an allocator rounded them up."""
        return sum(size for _, _, part, size in self._blocks.values() if part in parts)

    def pass_through(self, *sizes: int) -> None:
        """Take and give back what an operation holds inside, in bytes."""
        blocks = [self.allocator.allocate(size) for size in sizes if size]
        for block in blocks:
            self.live[self.part] += block.size
        self._look()
        for block in blocks:
            self.live[self.part] -= block.size
            self.allocator.free(block)

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Do one operation."""
        if function is _ASKS_FOR_THE_DEVICE:
            # Two of three, and nothing to count.
            return arguments[0].fake_device
        if function is _aten.add.Tensor and self._is_sum_of_gradients(*arguments):
            # Autograd would add it up in place, which it does not while someone watches.
            return arguments[0].add_(arguments[1])
        made = self._do(function, arguments, keywords or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.take(tensor)
        return made

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nobody compiles here, and keeping out of its way costs as much as an operation.
        return False

    def _is_sum_of_gradients(self, one: Any, other: Any) -> bool:
        if torch.is_grad_enabled() or torch._C._current_autograd_node() is None:
            return False
        shape = getattr(one, "shape", None)
        return shape in self.used_twice and shape == getattr(other, "shape", None)

    def _do(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if function in _ASKS_FOR_A_VALUE:
            dtype = arguments[0].dtype
            if function is not _aten._local_scalar_dense.default or dtype == torch.bool:
                return self._masks_are_plain
            return 0.0 if dtype.is_floating_point else 0
        if function is _aten.index.Tensor and any(_is_mask(index) for index in arguments[1]):
            return self._index(*arguments)
        if function in (_aten.masked_select.default, _aten.masked_scatter_backward.default):
            return arguments[0].new_empty(self._selected)
        if function is _aten._grouped_mm.default and arguments[0].dtype != torch.bfloat16:
            # Torch computes experts in other types too, and tells the shape of what comes out in this one only.
            told = [tensor.to(torch.bfloat16) for tensor in arguments[:2]]
            return function(*told, *arguments[2:], **keywords).to(arguments[0].dtype)
        if function is _bitsandbytes.gemm_4bit.default:
            # The weight in 16 bits and its constants unpacked live inside only.
            inputs, _, shape = arguments[:3]
            inner = keywords.get("absmax_8bit")
            scales = [4 * inner.numel()] * 2 if inner is not None else []
            self.pass_through(*scales, shape[0] * shape[1] * inputs.element_size())
        if function is _bitsandbytes.int8_vectorwise_quant.default:
            return self._in_8_bit(arguments[0])
        if function is _bitsandbytes.int8_mixed_scaled_mm.default:
            return self._product(arguments[0], outputs=arguments[2].shape[0])
        if function is _bitsandbytes.int8_vectorwise_dequant.default:
            # Before the last factor.
            self.pass_through(4 * arguments[0].numel())
        return function(*arguments, **keywords)

    def _in_8_bit(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A matrix in 8 bits, a scale for each row, and which columns stay as they are, which no size tells: none."""
        scales = inputs.new_empty(inputs.shape[0], dtype=torch.float32)
        made = inputs.new_empty(inputs.shape, dtype=torch.int8), scales, inputs.new_empty(0, dtype=torch.long)
        for tensor in made:
            self.take(tensor)
        # How large each element is, and whether that is too large.
        self.pass_through(inputs.numel() * inputs.element_size(), inputs.numel())
        return made

    def _product(self, inputs: torch.Tensor, *, outputs: int) -> tuple[torch.Tensor, ...]:
        """The product of what is in 8 bits, and of what stays as it is."""
        product = inputs.new_empty((inputs.shape[0], outputs))
        self.take(product)
        self.pass_through(*_in_8_bit_sums(product))
        return product, inputs.new_empty(0)

    def _index(self, values: torch.Tensor, indices: list[torch.Tensor | None]) -> torch.Tensor:
        """What a mask over the first dimensions selects."""
        mask = indices[0]
        assert mask is not None
        self.pass_through(*[_INDEX_BYTES * self._selected] * mask.ndim)
        return values.new_empty((self._selected, *values.shape[mask.ndim :]))

    def _drop(self, key: int) -> None:
        _, block, part, _ = self._blocks.pop(key)
        self.live[part] -= block.size
        self.allocator.free(block)

    def _look(self) -> None:
        if self.allocator.allocated > sum(self.at_peak.values()):
            self.at_peak = Counter(self.live)


def in_8_bit_product(inputs: torch.Tensor, output: torch.Tensor) -> tuple[int, ...]:
    """Bytes that an 8-bit layer holds inside at most on a GPU while its output is there: see bitsandbytes 0.50."""
    # What comes in is made float16 and then 8 bits wide, with two more to find what is too large.
    before = (2 + 1 + 2 + 1) * inputs.numel() - output.numel() * output.element_size()
    return max((before,), (inputs.numel(), *_in_8_bit_sums(output)), key=sum)


def _in_8_bit_sums(product: torch.Tensor) -> tuple[int, ...]:
    """Bytes of the sums in 32 bits, and in float16 if that is not what comes out."""
    return (4 * product.numel(), 0 if product.dtype == torch.float16 else 2 * product.numel())


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool
