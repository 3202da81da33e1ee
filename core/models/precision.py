"""In which type a run computes, and why. Light: names of types, not torch's objects."""

from collections.abc import Mapping

from core.choice import Choice
from core.devices.gpu import GpuSnapshot
from core.devices.host import has_bfloat16_matrices
from core.spec.run_spec import RunSpec

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
# NVIDIA computes bfloat16 in hardware from Ampere on.
_BF16_CAPABILITY = (8, 0)


def choose_dtype(
    spec: RunSpec, stored: str | None, gpu: GpuSnapshot | None, cpu_has_bfloat16: bool | None = None
) -> Choice:
    """The compute dtype for a checkpoint that stores `stored` on this device; `value` is a key of DTYPE_BYTES.

    It is always given, and is the compute dtype of quantized layers too, whose own default would be float32.
    `cpu_has_bfloat16` None asks this machine's processor.
    """
    wanted = spec.dtype
    if gpu is None:
        return _on_cpu(wanted, stored, has_bfloat16_matrices() if cpu_has_bfloat16 is None else cpu_has_bfloat16)
    if wanted == "float16" and not spec.use_peft:
        return Choice("dtype", "float32", "weights in float16 cannot be trained")
    if gpu.compute_capability is not None and gpu.compute_capability < _BF16_CAPABILITY:
        capability = ".".join(map(str, gpu.compute_capability))
        if wanted in ("auto", "bfloat16"):
            if spec.use_peft:
                return Choice("dtype", "float16", f"compute capability {capability} has no bfloat16")
            reason = f"compute capability {capability} has no bfloat16, and weights in float16 cannot be trained"
            return Choice("dtype", "float32", reason)
    if wanted == "float32" and spec.quantization != "none":
        return Choice("dtype", wanted, "as asked for; on this GPU quantized layers compute faster in 16 bits")
    if wanted != "auto":
        return Choice("dtype", wanted, "as asked for")
    where = f"compute capability {'.'.join(map(str, gpu.compute_capability))}" if gpu.compute_capability else gpu.name
    if stored == "float32" and not spec.use_peft:
        return Choice("dtype", "float32", "the checkpoint's own type; every weight is trained")
    if stored == "float16":
        return Choice("dtype", "bfloat16", f"{where}; wider range than the stored float16")
    return Choice("dtype", "bfloat16", where)


def _on_cpu(wanted: str, stored: str | None, has_bfloat16: bool) -> Choice:
    """The choice on a CPU, by what tests/bench/cpu_dtype.py measures.

    QLoRA steps in bfloat16 take 0.84 to 1.04 times as long as in float32 on a CPU with AMX, 1.1 to 1.25 times with
    AVX512-BF16 alone, 1.35 to 2.2 times with neither, and 3.8 to 9 times with AVX2.
    """
    if wanted == "float16":
        return Choice("dtype", "float32", "training in float16 needs a GPU")
    if wanted != "auto":
        return Choice("dtype", wanted, "as asked for")
    if stored == "float16":
        return Choice("dtype", "float32", "the checkpoint stores float16, which a CPU computes very slowly")
    if stored == "bfloat16" and not has_bfloat16:
        return Choice("dtype", "float32", "this CPU has no matrix unit for bfloat16, and computes it more slowly")
    if stored in ("bfloat16", "float32"):
        return Choice("dtype", stored, "the checkpoint's own type, on the CPU")
    return Choice("dtype", "float32", "the checkpoint names no type; on the CPU")
