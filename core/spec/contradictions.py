"""Options that are each right and cannot go together."""

import importlib.util

from core.data.mapping import ColumnMapping
from core.errors import SftuiError
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec


def contradictions(spec: RunSpec) -> list[Problem]:
    """What cannot go together, each with what to do about it, beside the option to change."""
    found: list[Problem] = []

    def error(field: str, message: str, fix: str) -> None:
        found.append(Problem(field, "error", message, fix))

    found += _in_datasets(spec)
    if spec.load_in_4bit and spec.load_in_8bit:
        error("load_in_8bit", "cannot go together with load_in_4bit.", "Choose one of the two.")
    if (spec.load_in_4bit or spec.load_in_8bit) and not spec.use_peft:
        error(
            "use_peft",
            "is off, but quantized weights cannot be trained.",
            "Train adapters, or load in 16 bit.",
        )
    if spec.assistant_only_loss and spec.completion_only_loss:
        error("completion_only_loss", "cannot go together with assistant_only_loss.", "Choose one of the two.")
    if spec.packing and spec.max_length is None:
        error("max_length", "is empty, but packing needs a length to fill.", "Set it, for example 2048.")
    if spec.eval_strategy != "no" and not spec.has_held_out_rows:
        error(
            "eval_strategy",
            "needs held-out rows, and there are none.",
            "Set test_split_size or sftui.held_out_file.",
        )
    elif spec.eval_strategy == "steps" and spec.eval_steps is None:
        error("eval_steps", "is empty, but the held-out rows are to be evaluated by steps.", "Set it, for example 100.")
    if spec.dtype == "float16" and not spec.use_peft:
        error(
            "dtype",
            "is float16, but weights in float16 cannot be trained: their gradients cannot be scaled.",
            "Choose bfloat16 or float32.",
        )
    if spec.test_split_size is not None and spec.sftui.held_out_file is not None:
        error("test_split_size", "cannot go together with sftui.held_out_file.", "Choose one of the two.")
    if spec.sftui.sample_rows and not spec.has_held_out_rows:
        error(
            "sftui.sample_rows",
            "needs held-out rows, and there are none.",
            "Set test_split_size or a held-out file.",
        )
    if spec.sftui.sample_every and not spec.sftui.sample_rows and not spec.sftui.sample_prompts:
        error(
            "sftui.sample_every",
            "is set, and there is nothing to answer.",
            "Set sftui.sample_prompts or sftui.sample_rows.",
        )
    for name in spec.sftui.report_to:
        if importlib.util.find_spec(name) is None:
            error("sftui.report_to", f"names {name}, which is not installed.", f"Remove it, or: pip install {name}.")
    if spec.use_peft:
        found += _in_adapters(spec)
    return found


def _in_datasets(spec: RunSpec) -> list[Problem]:
    found: list[Problem] = []
    fractions = [source.fraction for source in spec.datasets]
    for index, source in enumerate(spec.datasets):
        field = f"datasets[{index}]"
        if source.fraction is None and any(fractions):
            message = "is not given, and other datasets have a fraction: the shares of a mixture name all of it."
            found.append(Problem(f"{field}.fraction", "error", message, "Give every dataset one, or none."))
        if isinstance(source.data_files, dict) and source.split_name not in source.data_files:
            message = f"is {source.split_name}, and data_files names {', '.join(source.data_files) or 'no split'}."
            found.append(Problem(f"{field}.split", "error", message, "Name one of them."))
    if len(spec.datasets) == 1 and any(fractions):
        message = "changes nothing: it is the share of one dataset among several."
        found.append(Problem("datasets[0].fraction", "warning", message, "Remove it."))
    try:
        mapping = ColumnMapping.from_dict(spec.sftui.columns or {})
    except SftuiError as error:
        found.append(Problem("sftui.columns", "error", error.message, error.hint))
    else:
        if spec.sftui.columns and mapping.form == "unknown":
            message = (
                "does not say enough: it needs messages, or user and assistant, or prompt and completion, or text."
            )
            found.append(Problem("sftui.columns", "error", message, "Name the columns of one of them."))
    return found


def _in_adapters(spec: RunSpec) -> list[Problem]:
    found: list[Problem] = []

    def error(field: str, message: str, fix: str) -> None:
        found.append(Problem(field, "error", message, fix))

    if isinstance(spec.lora_target_modules, list):
        if not spec.lora_target_modules:
            error("lora_target_modules", "is empty.", "Name at least one module, or use all-linear.")
        if any(name.rsplit(".", 1)[-1] == "lm_head" for name in spec.lora_target_modules):
            error(
                "lora_target_modules",
                "names lm_head, which TRL's fused head would never train.",
                "Leave it out.",
            )
    first = spec.sftui.init_lora_weights
    if first in ("pissa", "olora") and spec.quantization != "none":
        error(
            "sftui.init_lora_weights",
            f"is {first}, which moves a part of the weights into the adapters: it needs them unquantized.",
            "Choose loftq with 4-bit, or load in 16 bit.",
        )
    elif first == "loftq" and not spec.load_in_4bit:
        error(
            "sftui.init_lora_weights",
            "is loftq, which makes up for what 4 bits lose, and the base is not loaded in 4 bit.",
            "Turn on load_in_4bit, or leave it at default.",
        )
    elif first not in ("default", "gaussian") and spec.use_dora:
        error("use_dora", f"cannot go together with a start from {first}.", "Choose one of the two.")
    if spec.lora_target_parameters and spec.use_dora:
        error(
            "lora_target_parameters",
            "cannot go together with use_dora: PEFT has no DoRA for weights that are no module.",
            "Turn DoRA off, or empty the list.",
        )
    elif spec.lora_target_parameters and first not in ("default", "gaussian"):
        error(
            "lora_target_parameters",
            f"cannot go together with a start from {first}, which PEFT has for whole layers only.",
            "Leave sftui.init_lora_weights at default, or empty the list.",
        )
    if spec.sftui.start_from_adapter is not None and first != "default":
        error(
            "sftui.init_lora_weights",
            f"is {first}, but the adapter to start from brings its own weights.",
            "Leave it at default.",
        )
    return found
