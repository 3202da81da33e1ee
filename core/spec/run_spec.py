"""RunSpec: what a run is to do, under TRL's own argument names.

Each option is declared once here. The form on the screen, `--set` on the command line, the comments of run.yaml and the
documentation are all made from that declaration. Defaults are those of `trl sft` unless the help says otherwise.
"""

import shlex
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from core.paths import expand
from core.spec.option import Label, Option, declared_options

Method = Literal["qlora", "lora", "full"]
InitLoraWeights = Literal["default", "gaussian", "pissa", "olora", "loftq", "eva"]
# As transformers has it: owner/name, perhaps with a revision and the name of a function.
_HUB_KERNEL = r"^[\w.-]+/[\w.-]+(@[\w./-]+)?(:[\w.-]+)?$"


class DatasetSource(BaseModel):
    """One entry of `datasets`, as in TRL: a local file, folder or pattern, `path: json` with `data_files`, or a dataset
    of the hub by its id. The `fraction`s of a mixture are the shares of its rows that come from each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    name: str | None = None
    data_dir: str | None = None
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    """One file, several, or those of each split."""
    split: str = "train"
    columns: list[str] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def split_name(self) -> str:
        """The split itself, of which `train[:10%]` takes a part."""
        return self.split.partition("[")[0]

    def named_files(self) -> tuple[str, ...] | None:
        """The files of its split as they are named; None if it names none beside its path."""
        named = self.data_files.get(self.split_name, []) if isinstance(self.data_files, dict) else self.data_files
        return named if named is None else tuple([named] if isinstance(named, str) else named)

    def files(self) -> tuple[Path, ...]:
        """The local files this source names."""
        named = self.named_files()
        return tuple(map(expand, (self.path,) if named is None else named))


class Declared(BaseModel):
    """Options that each carry their Label."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read true as 1.
        if isinstance(value, bool):
            prefix = "sftui." if cls is SftuiOptions else ""
            option = options().get(f"{prefix}{info.field_name}")
            if option is not None and bool not in option.kinds:
                raise ValueError("true or false is no number")
        return value


class SftuiOptions(Declared):
    """What TRL has no name for; under the one key `sftui` in run.yaml."""

    # YAML reads `device: 0` as a number.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    name: Annotated[str, Label("run", "Name", "Part of the run's folder name; made from the model if empty.")] = ""
    device: Annotated[str, Label("run", "Device", "auto, cpu, or the GPU by its index in nvidia-smi or its UUID.")] = (
        "auto"
    )
    load_as: Annotated[
        Literal["auto", "text", "vision"],
        Label("model", "Load as", "Text only or with vision, where a model can be both; auto follows its config.json."),
    ] = "auto"
    held_out_file: Annotated[
        str | None,
        Label("data", "Held-out file", "Rows to evaluate on, in the same form as the training rows."),
    ] = None
    columns: Annotated[
        dict[str, str] | None,
        Label("data", "Columns", "Which column is what, where sftui does not see it by itself: `user: question`."),
    ] = None
    bad_rows: Annotated[
        Literal["stop", "skip"],
        Label("data", "Bad rows", "Do not start with rows that cannot be trained on, or leave them out."),
    ] = "stop"
    sample_prompts: Annotated[
        list[str], Label("run", "Sample prompts", "Answered before and after training, side by side.")
    ] = []
    sample_rows: Annotated[
        int,
        Field(ge=0, le=1000),
        Label("run", "Sampled held-out rows", "So many held-out prompts are answered before and after training."),
    ] = 0
    probe: Annotated[
        bool,
        Label("run", "Probe the memory", "Before the run, try two steps on the longest rows; nothing is lost by it."),
    ] = False
    sample_every: Annotated[
        int | None,
        Field(ge=1),
        Label("run", "Answer every", "Steps between answers while it trains; empty: before and after only."),
    ] = None
    notes: Annotated[str, Label("run", "Notes", "Kept with the run.")] = ""
    on_not_finite: Annotated[
        Literal["stop", "pause", "go_on"],
        Label("run", "On NaN or Inf", "A loss or gradient that is no number: stop at the last good checkpoint, …"),
    ] = "stop"
    on_trouble: Annotated[
        Literal["go_on", "pause", "stop"],
        Label("run", "On other trouble", "A loss that leaps, a standstill, a failing GPU, little memory or disk."),
    ] = "go_on"
    on_finish: Annotated[
        str | list[str] | None,
        Label("run", "On finish", "A command to run at the end, without a shell; the facts are in SFTUI_… variables."),
    ] = None
    report_to: Annotated[
        list[Literal["tensorboard", "trackio", "wandb"]],
        Label("run", "Report to", "tensorboard (files in the run's folder), trackio, wandb (these send figures away)."),
    ] = []
    init_lora_weights: Annotated[
        InitLoraWeights,
        Label("adapter", "First weights", "What adapters start from; default leaves the model as it is."),
    ] = "default"
    start_from_adapter: Annotated[
        str | None,
        Label("adapter", "Start from", "Folder of an adapter to train further; its rank and targets hold."),
    ] = None
    train_vision: Annotated[
        bool, Label("adapter", "Train vision", "Train the vision tower and projector too; they are frozen otherwise.")
    ] = False
    skip_modules: Annotated[
        list[str],
        Label("precision", "Not quantized", "Modules kept in the compute type besides those that always are."),
    ] = []
    allow_hub_kernels: Annotated[
        list[str],
        Label("precision", "Allowed hub kernels", "Kernels of the hub that may run their compiled code, by name."),
    ] = []

    @field_validator("on_finish")
    @classmethod
    def _is_a_command(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, str):
            shlex.split(value)
        return value

    @property
    def preference(self) -> Literal["text", "vision"] | None:
        """Which of two ways to load a model is wanted; None leaves it to its config.json."""
        return None if self.load_as == "auto" else self.load_as


class RunSpec(Declared):
    """A run to be: frozen, validated, complete."""

    model_name_or_path: Annotated[
        str,
        Field(min_length=1),
        Label(
            "model",
            "Model",
            "A folder with config.json and safetensors, or a Hugging Face id in the local cache.",
        ),
    ]
    model_revision: Annotated[str, Label("model", "Revision", "Branch, tag or commit of a Hugging Face id.")] = "main"
    attn_implementation: Annotated[
        Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
        | Annotated[str, Field(pattern=_HUB_KERNEL)]
        | None,
        Label(
            "precision",
            "Attention",
            "Kernel for attention; empty lets transformers choose (sdpa).",
            others="a kernel of the hub by its name (kernels-community/…)",
        ),
    ] = None

    datasets: Annotated[
        list[DatasetSource],
        Field(min_length=1),
        Label(
            "data",
            "Datasets",
            "Files, folders and patterns of them (JSONL, JSON, CSV, Parquet, Arrow), or datasets of the hub.",
        ),
    ]
    test_split_size: (
        Annotated[
            float,
            Field(gt=0, lt=1),
            Label("data", "Held-out share", "Share of the rows kept out of training and evaluated on."),
        ]
        | None
    ) = None
    max_length: (
        Annotated[int, Field(ge=8), Label("data", "Max length", "Tokens a row is cut to; empty keeps rows whole.")]
        | None
    ) = 1024
    packing: Annotated[
        bool,
        Label("data", "Packing", "Fill each sequence with several rows, kept apart; faster on short rows."),
    ] = False
    packing_strategy: Annotated[
        Literal["bfd", "bfd_split", "wrapped"],
        Label(
            "data",
            "Packing strategy",
            "bfd keeps rows whole, bfd_split goes on with long ones in the next sequence, wrapped mixes rows.",
        ),
    ] = "bfd"
    padding_free: Annotated[
        bool, Label("data", "Padding-free", "Lay the rows of a batch end to end instead of filling them up.")
    ] = False
    train_sampling_strategy: Annotated[
        Literal["random", "group_by_length"],
        Label("data", "Order of rows", "group_by_length puts rows of like length into a batch: less padding."),
    ] = "random"
    chat_template_path: Annotated[
        str | None,
        Label("data", "Chat template", "A .jinja file, a folder with a tokenizer, or a name such as chatml."),
    ] = None
    assistant_only_loss: Annotated[
        bool, Label("data", "Assistant-only loss", "Learn from assistant turns only; needs `messages`.")
    ] = False
    completion_only_loss: Annotated[
        bool | None,
        Label("data", "Completion-only loss", "Learn from completions only; on by itself where there are."),
    ] = None

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Label(
            "precision",
            "Precision",
            "What is computed in; auto (TRL: float32) follows checkpoint and device.",
        ),
    ] = "auto"
    load_in_4bit: Annotated[bool, Label("precision", "4-bit", "Load the base model in 4 bits per weight.")] = False
    load_in_8bit: Annotated[bool, Label("precision", "8-bit", "Load the base model in 8 bits per weight.")] = False
    bnb_4bit_quant_type: Annotated[
        Literal["nf4", "fp4"], Label("precision", "4-bit type", "nf4 fits weights better than fp4.")
    ] = "nf4"
    use_bnb_nested_quant: Annotated[
        bool,
        Label("precision", "Double quant", "Quantize the constants too: saves about 0.4 bit per weight."),
    ] = False
    bnb_4bit_quant_storage: Annotated[
        Literal["uint8", "bfloat16", "float16", "float32"] | None,
        Label("precision", "4-bit storage", "Type the packed weights are kept in; matters to FSDP only."),
    ] = None

    use_peft: Annotated[bool, Label("adapter", "Train adapters", "LoRA; off trains every weight.")] = False
    lora_r: Annotated[int, Field(ge=1, le=4096), Label("adapter", "Rank", "Width of the adapters.")] = 16
    lora_alpha: Annotated[int, Field(ge=1), Label("adapter", "Alpha", "Adapters are scaled by alpha over rank.")] = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1), Label("adapter", "Dropout", "On the adapters' input.")] = 0.05
    lora_target_modules: Annotated[
        list[str] | Literal["all-linear"],
        Label("adapter", "Targets", "Modules that get an adapter: names, or all-linear (TRL: what PEFT knows)."),
    ] = "all-linear"
    use_rslora: Annotated[bool, Label("adapter", "rsLoRA", "Scale by alpha over the square root of rank.")] = False
    use_dora: Annotated[bool, Label("adapter", "DoRA", "Learn magnitude and direction apart; slower.")] = False
    lora_modules_to_save: Annotated[
        list[str] | None,
        Label("adapter", "Trained whole", "Modules trained and saved beside the adapters: embed_tokens, lm_head, …"),
    ] = None
    lora_target_parameters: Annotated[
        list[str] | None,
        Label("adapter", "Target parameters", "Weights that are no module, such as fused experts; empty: the experts."),
    ] = None

    learning_rate: Annotated[
        float,
        Field(gt=0, le=10),
        Label("optimizer", "Learning rate", "Around 2e-4 for LoRA, 2e-5 for full tuning."),
    ] = 2e-5
    per_device_train_batch_size: Annotated[
        int, Field(ge=1), Label("optimizer", "Batch per device", "Rows in one forward pass.")
    ] = 8
    gradient_accumulation_steps: Annotated[
        int, Field(ge=1), Label("optimizer", "Accumulation", "Forward passes for one optimizer step.")
    ] = 1
    optim: Annotated[
        str,
        Label("optimizer", "Optimizer", "adamw_torch_fused, adamw_torch, paged_adamw_8bit, adafactor, sgd, …"),
    ] = "adamw_torch_fused"
    weight_decay: Annotated[float, Field(ge=0), Label("optimizer", "Weight decay", "Pull of weights to zero.")] = 0.0
    max_grad_norm: Annotated[
        float, Field(ge=0), Label("optimizer", "Max gradient norm", "Gradients are cut to it.")
    ] = 1.0
    activation_checkpointing: Annotated[
        bool,
        Label(
            "optimizer",
            "Checkpointing",
            "Recompute activations in the backward pass: less memory, more time.",
        ),
    ] = True

    num_train_epochs: Annotated[
        float,
        Field(gt=0),
        Label("schedule", "Epochs", "Passes over the data, unless max steps says otherwise."),
    ] = 3.0
    max_steps: Annotated[
        int, Field(ge=-1), Label("schedule", "Max steps", "Optimizer steps; -1 leaves it to the epochs.")
    ] = -1
    lr_scheduler_type: Annotated[
        Literal[
            "linear",
            "cosine",
            "constant",
            "constant_with_warmup",
            "cosine_with_min_lr",
            "inverse_sqrt",
            "polynomial",
        ],
        Label("schedule", "Schedule", "How the learning rate moves over the run."),
    ] = "linear"
    warmup_steps: Annotated[
        float,
        Field(ge=0),
        Label("schedule", "Warm-up", "Steps to reach the learning rate; below 1, a share of all."),
    ] = 0
    eval_strategy: Annotated[
        Literal["no", "steps", "epoch"],
        Label("schedule", "Evaluate", "When the held-out rows are evaluated."),
    ] = "no"
    eval_steps: (
        Annotated[int, Field(ge=1), Label("schedule", "Evaluate every", "Steps between evaluations.")] | None
    ) = None
    save_strategy: Annotated[
        Literal["no", "steps", "epoch"], Label("schedule", "Save", "When checkpoints are written.")
    ] = "steps"
    save_steps: Annotated[int, Field(ge=1), Label("schedule", "Save every", "Steps between checkpoints.")] = 500
    save_total_limit: (
        Annotated[int, Field(ge=1), Label("schedule", "Keep", "Checkpoints kept, the newest; empty keeps all.")] | None
    ) = None
    seed: Annotated[int, Field(ge=0, lt=2**32), Label("run", "Seed", "Of shuffling, dropout and adapters.")] = 42

    sftui: SftuiOptions = SftuiOptions()
    extra_arguments: dict[str, Any] = {}
    """Arguments of SFTConfig that have no field here, passed on as they are."""

    @property
    def method(self) -> Method:
        """What the field calls this combination of options."""
        if not self.use_peft:
            return "full"
        return "qlora" if self.load_in_4bit or self.load_in_8bit else "lora"

    @property
    def quantization(self) -> Literal["none", "nf4", "fp4", "int8"]:
        """How the base weights are stored."""
        if self.load_in_4bit:
            return self.bnb_4bit_quant_type
        return "int8" if self.load_in_8bit else "none"

    @property
    def has_held_out_rows(self) -> bool:
        """Whether there is anything to evaluate on."""
        return self.sftui.held_out_file is not None or self.test_split_size is not None


@cache
def options() -> dict[str, Option]:
    """Every option by name, in the order of declaration."""
    declared = {name: option for name, option in declared_options(RunSpec) if option}
    declared.update((name, option) for name, option in declared_options(SftuiOptions, "sftui.") if option)
    return declared
