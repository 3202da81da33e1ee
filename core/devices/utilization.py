"""How much of what a GPU can compute a run gets out of it: model FLOPs utilization."""

from core.runs.state import RunState

# Dense 16-bit tensor FLOPs with 32-bit sums, in 10^12 a second, as NVIDIA's data sheets have them.
# The first name that is part of the GPU's counts.
_PEAKS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500), ("B200", 2250), ("B100", 1750), ("GH200", 990), ("H200", 989), ("H20", 148),
    ("H100 PCIe", 756), ("H100 NVL", 835), ("H100", 989), ("H800", 989),
    ("A100", 312), ("A800", 312), ("A40", 149.7), ("A30", 165), ("A10G", 70), ("A10", 125),
    ("L40S", 362), ("L40", 181), ("L4", 121), ("V100", 125), ("T4", 65),
    ("RTX 6000 Ada", 364), ("RTX A6000", 154.8), ("RTX A5000", 111), ("RTX A4000", 76.7),
    ("RTX 5090", 209.5), ("RTX 5080", 112.6), ("RTX 4090", 165.2), ("RTX 4080", 97.5), ("RTX 4070", 58.3),
    ("RTX 3090 Ti", 80), ("RTX 3090", 71), ("RTX 3080", 59.5), ("RTX 2080 Ti", 53.8),
)  # fmt: skip
_HALF = ("bfloat16", "float16")


def peak_flops(name: str, dtype: str) -> float | None:
    """What a GPU of this name computes in a second, in FLOPs; None where it is not known for this type."""
    if dtype not in _HALF:
        return None
    words = f"{name} ".upper().replace("-", " ")
    return next((peak * 1e12 for known, peak in _PEAKS if f"{known} ".upper() in words), None)


def flops_per_token(parameters: int, *, frozen: bool, recomputes: bool) -> float:
    """FLOPs of one token: 2 N forward, 2 N to pass gradients on, 2 N for those of the weights, 2 N to recompute.

    A frozen base has no gradients of weights; what attention adds is left out.
    """
    return parameters * (4.0 + (0 if frozen else 2) + (2 if recomputes else 0))


def utilization(state: RunState, tokens_per_second: float | None) -> float | None:
    """The share of its GPUs' peak that a run uses, from 0 to 1; None without a GPU whose peak is known."""
    loaded, training = state.loaded, state.training
    if loaded is None or training is None or training.recomputes is None or not tokens_per_second or not state.memory:
        return None
    own = [gpu for gpu in state.memory[-1].use.gpus if gpu.own_bytes] or list(state.memory[-1].use.gpus[:1])
    peaks = [peak_flops(gpu.name, loaded.dtype) for gpu in own]
    if not peaks or None in peaks or not loaded.device.startswith("cuda"):
        return None
    cost = flops_per_token(loaded.parameters, frozen=state.method != "full", recomputes=training.recomputes)
    return tokens_per_second * cost / sum(peak for peak in peaks if peak)
