"""The runs whose memory is measured: which model, how it is trained, how its rows lie. The most telling come first."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Method = Literal["nf4", "int8", "lora", "full"]
Rows = Literal["even", "odd", "mixed", "packed"]
LLAMA, QWEN, GEMMA = "llama-3.1-8b", "qwen3-4b", "gemma-3-1b"

_HOW: dict[Method, dict[str, Any]] = {
    "nf4": {"use_peft": True, "load_in_4bit": True, "use_bnb_nested_quant": True},
    "int8": {"use_peft": True, "load_in_8bit": True},
    "lora": {"use_peft": True},
    "full": {"use_peft": False},
}
# The first step makes the optimizer's state; with rows of several lengths the third or fourth batch may be the largest.
_STEPS = {"even": 3, "odd": 4, "mixed": 4, "packed": 3}
_TINY_SHARE = 32


@dataclass(frozen=True, slots=True)
class Configuration:
    """One run."""

    model: str
    """A name in tests.gpu.random_models."""
    method: Method
    tokens: int
    """`max_length`, which the longest rows of every kind have exactly."""
    batch: int = 1
    rows: Rows = "even"
    """All of that length, which needs no mask; half of them a token shorter, as a plan assumes; of all lengths, with
    a probe that meets the longest ones; or laid end to end, four to a sequence."""
    checkpointing: bool = True
    rank: int = 16
    optimizer: str = "adamw_torch_fused"
    accumulation: int = 1
    attention: str | None = None
    """None lets the run choose."""

    @property
    def name(self) -> str:
        """It in one word, no two alike."""
        words = [self.model, self.method, f"{self.batch}x{self.tokens}", self.rows]
        words += ["ckpt" if self.checkpointing else "all"] + ([f"r{self.rank}"] if self.method != "full" else [])
        words += [f"acc{self.accumulation}"] if self.accumulation > 1 else []
        words += [self.attention] if self.attention else []
        return "/".join([*words, self.optimizer.removeprefix("adamw_torch_")])

    @property
    def is_paged(self) -> bool:
        """Whether part of the optimizer's state lies outside of PyTorch's allocator."""
        return self.optimizer.startswith("paged_")

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return _STEPS[self.rows]

    def values(self, model: str, rows: str, device: str) -> dict[str, Any]:
        """The options of its spec, under TRL's names. `model` and `rows` are paths, `device` is sftui.device."""
        return {
            "model_name_or_path": model,
            "datasets": [{"path": "json", "data_files": rows}],
            "dtype": "bfloat16",
            "max_length": self.tokens,
            "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation,
            "packing": self.rows == "packed",
            "activation_checkpointing": self.checkpointing,
            "lora_r": self.rank,
            "optim": self.optimizer,
            "attn_implementation": self.attention,
            "learning_rate": 1e-5,
            "max_steps": self.steps,
            "save_strategy": "no",
            # What random weights learn is of no interest, only what it takes.
            "sftui": {"device": device, "name": self.model, "probe": self.rows == "mixed", "on_not_finite": "go_on"},
            **_HOW[self.method],
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Configuration":
        """The configuration in a JSON object."""
        return cls(**{field.name: value[field.name] for field in fields(cls)})


PAGED = "paged_adamw_8bit"
CONFIGURATIONS = (
    # What most people do, once for each model and method.
    Configuration(LLAMA, "nf4", 2048),
    Configuration(LLAMA, "nf4", 2048, 4, "odd"),
    Configuration(LLAMA, "lora", 2048),
    Configuration(QWEN, "nf4", 2048, 4, "odd"),
    Configuration(GEMMA, "full", 1024, 4, "odd"),
    Configuration(LLAMA, "int8", 2048),
    Configuration(LLAMA, "nf4", 2048, checkpointing=False),
    Configuration(GEMMA, "nf4", 2048, 4, "odd"),
    Configuration(QWEN, "lora", 2048, 2, "odd", checkpointing=False),
    Configuration(LLAMA, "nf4", 2048, 2, "packed"),
    Configuration(LLAMA, "nf4", 4096, 2, "odd", rank=64, optimizer=PAGED),
    Configuration(LLAMA, "lora", 2048, 2, "odd", checkpointing=False),
    Configuration(GEMMA, "full", 2048, 2, "odd", checkpointing=False),
    Configuration(QWEN, "nf4", 2048, 4, "mixed"),
    Configuration(LLAMA, "nf4", 8192),
    # Of these the first fits into 80 GB with little to spare, the second hardly does not, the third by far not.
    Configuration(LLAMA, "lora", 6144, checkpointing=False),
    Configuration(LLAMA, "lora", 8192, checkpointing=False),
    Configuration(LLAMA, "lora", 16384, checkpointing=False),
    Configuration(QWEN, "int8", 2048, 2, "odd"),
    Configuration(GEMMA, "full", 2048, optimizer=PAGED),
    # One thing is otherwise.
    Configuration(LLAMA, "nf4", 2048, 2),
    Configuration(LLAMA, "nf4", 2048, 2, "odd"),
    Configuration(LLAMA, "nf4", 512, 8, "odd"),
    Configuration(LLAMA, "nf4", 2048, rank=128, optimizer=PAGED),
    Configuration(LLAMA, "nf4", 2048, 2, "odd", attention="eager"),
    Configuration(QWEN, "nf4", 2048, 2, "odd", accumulation=2),
    Configuration(QWEN, "nf4", 4096, rank=32, checkpointing=False),
    Configuration(QWEN, "lora", 4096, 1, "packed", checkpointing=False),
    Configuration(QWEN, "lora", 4096, 2, "odd", optimizer=PAGED),
    Configuration(GEMMA, "lora", 2048, 8, "odd"),
    Configuration(GEMMA, "lora", 4096, 2, "odd", rank=64, checkpointing=False),
    Configuration(GEMMA, "int8", 2048, 4, "odd"),
    Configuration(GEMMA, "full", 2048, 2, "packed"),
    Configuration(GEMMA, "nf4", 1024, 8, "mixed", checkpointing=False),
    Configuration(LLAMA, "lora", 4096, 2, "odd", rank=64),
    Configuration(LLAMA, "int8", 2048, 2, "odd", checkpointing=False),
)


def tiny(configuration: Configuration) -> Configuration:
    """The same with short rows, for models that train in a second."""
    return replace(configuration, tokens=configuration.tokens // _TINY_SHARE)


def part_of(configurations: tuple[Configuration, ...], part: str) -> tuple[Configuration, ...]:
    """The Nth of M parts of about the same size; `part` is "N/M". Raises ValueError."""
    number, _, count = part.partition("/")
    n, m = (int(one) if one.isdecimal() else 0 for one in (number, count))
    if not 1 <= n <= m:
        raise ValueError(f"{part} is no part: write 1/2 or 2/2")
    size = -(-len(configurations) // m)
    return configurations[(n - 1) * size : n * size]
