"""How much faster or slower a run gets by a change: a model from published figures, to rank changes; no measurement.

Only ratios mean anything. Published: without checkpointing 21 % faster (torchtune); NF4 1.3 to 1.9 times slower than
bfloat16, most with few tokens in a forward pass, and 8-bit 2 to 3 times (bitsandbytes issue 465, 7B on an A5000);
float32 has half the throughput of bfloat16 or less (NVIDIA's data sheets). Not published, and kept small so that they
only decide between equals: what attention kernels, optimizers, double quantization, offloading and a forward pass of
its own cost.
"""

import math

from core.memory.plan import Plan
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING

_CHECKPOINTING = 1.21
_FOUR_BIT_FEW_TOKENS, _FOUR_BIT_MANY_TOKENS = (512, 1.9), (8192, 1.3)
_EIGHT_BIT = 2.5
_DOUBLE_QUANT = 1.02
_FLOAT32 = 2.0
_ATTENTION = {"eager": 1.3, "sdpa": 1.0, "flash_attention_2": 0.95, "flash_attention_3": 0.9}
_OPTIMIZER_8BIT, _OPTIMIZER_PAGED = 1.02, 1.03
_OFFLOADED = 1.2
# Launching kernels and reading weights take the same time for few tokens as for many: as if there were so many more.
_TOKENS_OF_A_PASS = 128
# What a row has where nothing says how long it is.
_TOKENS_OF_A_ROW = 1024
# Less than this is lost in what the model does not know.
_WORTH_A_WORD = 0.03


def relative_time(spec: RunSpec, *, dtype: str, attention: str) -> float:
    """Return what a token of this spec's training takes, in units that mean something in a ratio only.

    `dtype` and `attention` are what was chosen where the spec leaves it open.
    """
    tokens = spec.per_device_train_batch_size * (spec.max_length or _TOKENS_OF_A_ROW)
    time = 1 + _TOKENS_OF_A_PASS / tokens
    if spec.activation_checkpointing:
        time *= _CHECKPOINTING
    if spec.load_in_8bit:
        time *= _EIGHT_BIT
    elif spec.load_in_4bit:
        time *= _four_bit(tokens) * (_DOUBLE_QUANT if spec.use_bnb_nested_quant else 1)
    if dtype == "float32":
        time *= _FLOAT32
    if spec.optim.startswith("paged_"):
        time *= _OPTIMIZER_PAGED
    elif spec.optim.endswith("_8bit"):
        time *= _OPTIMIZER_8BIT
    if spec.extra_arguments.get(OFFLOADING):
        time *= _OFFLOADED
    return time * _ATTENTION.get(attention, 1.0)


def _four_bit(tokens: int) -> float:
    (few, slow), (many, fast) = _FOUR_BIT_FEW_TOKENS, _FOUR_BIT_MANY_TOKENS
    share = math.log(min(max(tokens, few), many) / few) / math.log(many / few)
    return slow + share * (fast - slow)


def time_of(spec: RunSpec, plan: Plan) -> float:
    """Return the relative time of a spec with what its plan chose for it."""
    return relative_time(spec, dtype=plan_choice(plan, "dtype"), attention=plan_choice(plan, "attn_implementation"))


def plan_choice(plan: Plan, name: str) -> str:
    """Return what a plan chose under a name; empty where it chose nothing."""
    return next((choice.value for choice in plan.choices if choice.name == name), "")


def speed_words(ratio: float) -> str:
    """Return a ratio of times, after to before, in words: "about 20 % faster"; nothing where it is hardly different."""
    if ratio <= 0.5:
        return f"about {1 / ratio:.1f} times as fast"
    if ratio >= 2:
        return f"takes about {ratio:.1f} times as long"
    change = 1 / ratio - 1 if ratio < 1 else ratio - 1
    if change < _WORTH_A_WORD:
        return ""
    percent = max(5, 5 * round(change * 20))
    return f"about {percent} % faster" if ratio < 1 else f"takes about {percent} % longer"
