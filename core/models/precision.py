"""In which type a run computes, and why. Light: names of types, not torch's objects."""

from collections.abc import Mapping
from typing import Literal

from core.choice import Choice
from core.devices.gpu import GpuSnapshot
from core.spec.run_spec import RunSpec

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
# NVIDIA computes bfloat16 in hardware from Ampere on.
_BF16_CAPABILITY = (8, 0)


def choose_dtype(spec: RunSpec, stored: str | None, gpu: GpuSnapshot | None) -> Choice:
    """The compute dtype for a checkpoint that stores `stored` on this device; `value` is one of Dtype."""
    wanted = spec.dtype
    if gpu is not None and gpu.compute_capability is not None and gpu.compute_capability < _BF16_CAPABILITY:
        capability = ".".join(map(str, gpu.compute_capability))
        if wanted in ("auto", "bfloat16"):
            if spec.use_peft:
                return Choice("dtype", "float16", f"compute capability {capability} has no bfloat16")
            reason = f"compute capability {capability} has no bfloat16, and weights in float16 cannot be trained"
            return Choice("dtype", "float32", reason)
    if wanted == "float16" and gpu is None:
        return Choice("dtype", "float32", "training in float16 needs a GPU")
    if wanted != "auto":
        return Choice("dtype", wanted, "as asked for")
    if gpu is None:
        if stored == "float16":
            return Choice("dtype", "float32", "the checkpoint stores float16, which a CPU computes very slowly")
        if stored in ("bfloat16", "float32"):
            return Choice("dtype", stored, "the checkpoint's own type, on the CPU")
        return Choice("dtype", "float32", "the checkpoint names no type; on the CPU")
    where = f"compute capability {'.'.join(map(str, gpu.compute_capability))}" if gpu.compute_capability else gpu.name
    if stored == "float32" and not spec.use_peft:
        return Choice("dtype", "float32", "the checkpoint's own type; every weight is trained")
    if stored == "float16":
        return Choice("dtype", "bfloat16", f"{where}; wider range than the stored float16")
    return Choice("dtype", "bfloat16", where)
