"""A run as TRL alone does it: a YAML that `trl sft --config` takes as it is, and the rows as it wants them."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from core.data.rendering import DataRequest, PreparedData, prepare_data, split
from core.data.row_store import RowStore
from core.data.training_rows import TrainingRows
from core.errors import SftuiError
from core.models import loading
from core.models.tokenizer import load_tokenizer
from core.results.cards import base_name
from core.results.exporting import ExportProgress, ExportRequest
from core.results.loaded import base_request, read_run_spec
from core.runs.folder import RunFolder
from core.runs.state import RunState
from core.spec.run_spec import RunSpec

Hear = Callable[[ExportProgress], object]
CONFIG, TEMPLATE = "sft.yaml", "chat_template.jinja"
_TELL_ROWS = 500


class TrlExport:
    """A run's spec and rows, ready to be written."""

    def __init__(self, run: RunFolder, hear: Hear) -> None:
        """Raises SftuiError for what TRL has no argument for."""
        self._spec = spec = read_run_spec(run)
        self._state = run.read_state()
        if self._state.loaded is None:
            raise SftuiError("The run never loaded its model", "What it would have been is not known.", "Run it first.")
        _refuse_own_ways(spec)
        self.base = base_request(spec, self._state.loaded.dtype)
        trusted = loading.trusts_own_code(self.base)
        self._tokenizer = load_tokenizer(
            self.base.folder, lambda *_: None, trusted=trusted, chat_template_path=spec.chat_template_path
        )
        known = load_tokenizer(self.base.folder, lambda *_: None, trusted=trusted)
        if len(self._tokenizer) != len(known):
            raise SftuiError(
                "TRL cannot do this alone",
                "The chat template brought new tokens, whose rows were trained.",
                "Take a template without new tokens (chat_template_path: zephyr) in another run.",
            )
        hear(ExportProgress("reading the rows"))
        self._data: PreparedData = prepare_data(
            spec, DataRequest(self._tokenizer, self.base.folder, lambda _: None, lambda: False)
        )
        # What TRL masks by itself it may as well make tokens of: such rows can be read, and used with another model.
        self.as_tokens = self._data.tokenizer.way == "computed"

    def close(self) -> None:
        """Give back the files."""
        self._data.close()

    @property
    def size_bytes(self) -> int:
        """About what the rows take."""
        tokens = self._data.told.tokens or 0
        return tokens * (14 if self.as_tokens else 6) * 2

    def write(self, target: Path, request: ExportRequest, hear: Hear) -> tuple[tuple[str, str], ...]:
        """Write YAML, rows and how to run it. Returns what there is to say."""
        data = self._data
        train, test = self._numbers()
        (target / "data").mkdir(exist_ok=True)
        self._write_rows(target / "data" / "train.jsonl", data.train, data.store, train, hear)
        if data.held_out is not None:
            self._write_rows(target / "data" / "test.jsonl", data.held_out, data.held_out_store, test, hear)
        values = self._values(request, data.held_out is not None)
        if self._spec.chat_template_path is not None:
            (target / TEMPLATE).write_text(str(self._tokenizer.chat_template), encoding="utf-8")
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        (target / CONFIG).write_text(f"# From a run of sftui; `trl sft --config {CONFIG}` runs it.\n{text}", "utf-8")
        (target / "README.md").write_text(self._readme(), encoding="utf-8")
        rows_as = "as tokens, with what is learnt from marked" if self.as_tokens else "as text, in TRL's own form"
        return (
            ("rows", f"{len(self._data.train):,} sequences {rows_as}"),
            ("run it", f"cd into it, then: trl sft --config {CONFIG}"),
        )

    def _numbers(self) -> tuple[Iterable[int], Iterable[int]]:
        """The rows to train on and those held out, in the order in which they are before they are packed."""
        if self._spec.sftui.held_out_file is None and self._spec.test_split_size is not None:
            train, test = split(len(self._data.store), self._spec.test_split_size, self._spec.seed)
            return train.tolist(), test.tolist()
        return range(len(self._data.store)), range(len(self._data.held_out_store))

    def _write_rows(self, path: Path, rows: TrainingRows, store: RowStore, numbers: Iterable[int], hear: Hear) -> None:
        with path.open("w", encoding="utf-8") as file:
            lines = _as_tokens(rows) if self.as_tokens else _as_text(rows, store, numbers)
            for number, line in enumerate(lines):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                if number % _TELL_ROWS == 0:
                    hear(ExportProgress(f"writing the rows ({path.stem})", number, rows.rows))

    def _values(self, request: ExportRequest, has_test: bool) -> dict[str, Any]:
        spec, loaded = self._spec, self._state.loaded
        assert loaded is not None
        folder = Path(spec.model_name_or_path)
        on_disk = folder.is_absolute()
        values: dict[str, Any] = {
            "model_name_or_path": request.base_id or (str(folder) if on_disk else spec.model_name_or_path),
            "model_revision": spec.model_revision,
            "dtype": loaded.dtype,
            "attn_implementation": spec.attn_implementation,
            "dataset_name": "data",
            "output_dir": "output",
            **self._precision(loaded.dtype, loaded.device),
            **self._adapter(self._state),
            **self._rows(),
        }
        for name in _AS_THEY_ARE:
            values[name] = getattr(spec, name)
        values |= {
            "per_device_eval_batch_size": spec.per_device_train_batch_size,
            "eval_strategy": spec.eval_strategy if has_test else "no",
            "logging_steps": 1,
            "report_to": "none",
            **{name: value for name, value in spec.extra_arguments.items() if name not in _DONE_ALREADY},
        }
        if spec.activation_checkpointing:
            values["activation_checkpointing_kwargs"] = {"use_reentrant": False}
        return {name: value for name, value in values.items() if value is not None}

    def _precision(self, dtype: str, device: str) -> dict[str, Any]:
        spec = self._spec
        values: dict[str, Any] = {
            "bf16": dtype == "bfloat16",
            "fp16": dtype == "float16",
            "use_cpu": device == "cpu",
            "dataloader_pin_memory": device != "cpu",
        }
        if spec.load_in_4bit:
            names = ("load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")
            values |= {name: getattr(spec, name) for name in names}
        elif spec.load_in_8bit:
            values["load_in_8bit"] = True
        return values

    def _adapter(self, state: RunState) -> dict[str, Any]:
        spec = self._spec
        if not spec.use_peft:
            return {}
        values = {name: getattr(spec, name) for name in _ADAPTER}
        adapted = state.adapted.target_modules if state.adapted is not None else ()
        fused = [name for name in adapted if "." in name]
        values["lora_target_modules"] = [name for name in adapted if name not in fused] or "all-linear"
        values["lora_target_parameters"] = fused or spec.lora_target_parameters
        if fused:
            values["lora_dropout"] = 0.0
        return values

    def _rows(self) -> dict[str, Any]:
        spec = self._spec
        if self.as_tokens:
            return {
                "dataset_kwargs": {"skip_prepare_dataset": True},
                "remove_unused_columns": False,
                "max_length": None,
                "packing": spec.packing,
                "packing_strategy": spec.packing_strategy,
                "padding_free": spec.padding_free,
            }
        values = {name: getattr(spec, name) for name in _OF_ROWS}
        if spec.chat_template_path is not None:
            values["chat_template_path"] = TEMPLATE
        return values

    def _readme(self) -> str:
        name = base_name(self._spec, self.base.folder)
        return (
            f"# {name}, fine-tuned by TRL alone\n\n"
            f"```\ncd HERE\ntrl sft --config {CONFIG}\n```\n\n"
            f"`{CONFIG}` names the base model as the run had it; `data/` holds the rows. With the same versions and "
            "device the losses are those of the run.\n"
        )


_AS_THEY_ARE = (
    "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "weight_decay",
    "max_grad_norm", "activation_checkpointing", "num_train_epochs", "max_steps", "lr_scheduler_type", "warmup_steps",
    "eval_steps", "save_strategy", "save_steps", "save_total_limit", "seed", "train_sampling_strategy",
)  # fmt: skip
_ADAPTER = (
    "use_peft", "lora_r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_modules_to_save",
)  # fmt: skip
_OF_ROWS = (
    "max_length", "packing", "packing_strategy", "padding_free", "assistant_only_loss", "completion_only_loss",
)  # fmt: skip
# What was done to the rows before they were written.
_DONE_ALREADY = ("dataset_kwargs", "dataset_num_proc")


def _as_tokens(rows: TrainingRows) -> Iterator[dict[str, Any]]:
    for row in rows:
        lengths = {"seq_lengths": row["seq_lengths"]} if "seq_lengths" in row else {}
        yield {"input_ids": row["input_ids"].tolist(), "labels": row["labels"].tolist(), **lengths}


def _as_text(rows: TrainingRows, store: RowStore, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The rows themselves, without those that the run left out."""
    kept = {piece.row for number in range(len(rows)) for piece in rows.pieces(number)}
    for number in numbers:
        if number in kept:
            yield store.row(number).canonical


def _refuse_own_ways(spec: RunSpec) -> None:
    """Raise SftuiError for what no argument of TRL says."""
    own = {
        "sftui.init_lora_weights": spec.use_peft and spec.sftui.init_lora_weights != "default",
        "sftui.start_from_adapter": spec.sftui.start_from_adapter is not None,
        "sftui.skip_modules": bool(spec.sftui.skip_modules),
        "sftui.train_vision": spec.sftui.train_vision,
    }
    used = [name for name, is_used in own.items() if is_used]
    if used:
        raise SftuiError(
            "TRL cannot do this alone",
            f"The run has set {', '.join(used)}, which TRL has no argument for.",
            "Write a training script of your own with PEFT, or leave it at its default in another run.",
        )
