"""Fake tensors without the bookkeeping that a compiler needs: several times as fast."""

from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_impls import op_implementations_checks
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._pytree import tree_map_only

_CPU = torch.device("cpu")
_aten = torch.ops.aten
# What FakeTensorMode has to add to these is about sizes that are not known, and there are none.
_KNOWN = (
    _aten.view.default, _aten._unsafe_view.default, _aten.slice.Tensor, _aten.select.int, _aten.zeros_like.default,
    _aten.ones_like.default, _aten.empty_like.default, _aten.new_empty.default, _aten.new_zeros.default,
)  # fmt: skip


class QuickFakeMode(FakeTensorMode):  # type: ignore[misc]
    """A FakeTensorMode that asks torch's meta kernels at once where it has nothing to add to them.

    Only for tensors that are all on the CPU, or said to be.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._quick: dict[Any, bool] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Do one operation."""
        keywords = keywords or {}
        quick = self._quick.get(function)
        if quick is None:
            quick = self._quick[function] = _is_quick(function)
        if not quick or keywords.get("device") is not None or FakeTensor not in types:
            return super().__torch_dispatch__(function, types, arguments, keywords)
        try:
            with in_kernel_invocation_manager(self):
                made = function(*arguments, **keywords)
        except (NotImplementedError, RuntimeError):
            # There is no such kernel, or a real tensor is among the arguments.
            return super().__torch_dispatch__(function, types, arguments, keywords)
        if type(made) is torch.Tensor:
            return FakeTensor(self, made, _CPU)
        return tree_map_only(torch.Tensor, self._wrapped, made)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nobody compiles here, and keeping out of its way costs as much as an operation.
        return False

    def _wrapped(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(tensor, FakeTensor) else FakeTensor(self, tensor, _CPU)


def _is_quick(function: Any) -> bool:
    """Whether what the meta kernel returns is all there is to an operation."""
    if not isinstance(function, OpOverload) or function.namespace != "aten" or function._schema.is_mutable:
        return False
    if function in _KNOWN:
        return True
    takes_tensors = any("Tensor" in str(argument.type) for argument in function._schema.arguments)
    return takes_tensors and not any(check(function) for check, _ in op_implementations_checks)
