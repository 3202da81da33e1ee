"""From a spec to TRL's SFTTrainer."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from core.data.rendering import PreparedData
from core.runs.folder import RunFolder
from core.spec.run_spec import RunSpec
from core.training.randomness import Randomness
from core.training.saving import CheckpointSaver
from core.training.whereabouts import Whereabouts


def training_arguments(spec: RunSpec, folder: RunFolder, dtype: str, device: str) -> SFTConfig:
    """The SFTConfig of a spec. Every step is logged, nothing is printed, nothing is sent anywhere."""
    arguments: dict[str, Any] = {
        "output_dir": str(folder.checkpoints),
        "learning_rate": spec.learning_rate,
        "per_device_train_batch_size": spec.per_device_train_batch_size,
        "per_device_eval_batch_size": spec.per_device_train_batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "optim": spec.optim,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "activation_checkpointing": spec.activation_checkpointing,
        "num_train_epochs": spec.num_train_epochs,
        "max_steps": spec.max_steps,
        "lr_scheduler_type": spec.lr_scheduler_type,
        "warmup_steps": spec.warmup_steps,
        "eval_strategy": spec.eval_strategy,
        "eval_steps": spec.eval_steps,
        "save_strategy": spec.save_strategy,
        "save_steps": spec.save_steps,
        "seed": spec.seed,
        "packing": spec.packing,
        "packing_strategy": spec.packing_strategy,
        "padding_free": spec.padding_free,
        "train_sampling_strategy": spec.train_sampling_strategy,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
    }
    if spec.activation_checkpointing:
        arguments["activation_checkpointing_kwargs"] = {"use_reentrant": False}
    ours = {
        "logging_steps": 1,
        "logging_strategy": "steps",
        # A NaN must be seen when it happens; the filter would also wait for the GPU at every micro-step.
        "logging_nan_inf_filter": False,
        "report_to": list(spec.sftui.report_to) or "none",
        # Only what is committed may be counted and deleted: core.training.saving does.
        "save_total_limit": None,
        "disable_tqdm": True,
        # The rows come as tokens with labels, cut and packed: TRL is left nothing to prepare.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "max_length": None,
        "assistant_only_loss": False,
        "completion_only_loss": None,
    }
    return SFTConfig(**(arguments | spec.extra_arguments | ours))


class SafeTrainer(SFTTrainer):  # type: ignore[misc]
    """An SFTTrainer whose checkpoints are whole or not there, and that goes on from one in the types that it has."""

    saver: CheckpointSaver
    at: Whereabouts

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute it, and put down before what batch it is of."""
        self.at.batch_rows, self.at.batch_tokens = inputs["input_ids"].shape[0], inputs["input_ids"].numel()
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.saver.beside)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, best = self.state.global_step, self.state.best_global_step

        def write() -> None:
            # The Trainer would look for the best checkpoint beside this one, where it never is.
            self.state.best_global_step = 0
            try:
                super(SafeTrainer, self)._save_checkpoint(model, trial)
            finally:
                self.state.best_global_step = best
            self.state.best_model_checkpoint = str(self.saver.place(best)) if best else None
            self.state.save_to_json(str(self.saver.beside / f"checkpoint-{step}" / TRAINER_STATE_NAME))

        if not self.saver.wants(step):
            return
        if not _are_finite(parameter for parameter in self.model.parameters() if parameter.requires_grad):
            self.saver.refuse(step)
            return
        held_out = {entry["step"]: entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry}
        if not self.saver.save(step, held_out, write):
            self.control.should_training_stop = True

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and leave no trace: a resumed run does not evaluate again, and must draw the same numbers."""
        before = Randomness.now()
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        before.restore()
        return metrics

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # PEFT 0.21 makes 16-bit adapters float32 when it loads them: a resumed QLoRA run would take twice the memory
        # for them, and learn something else than one that was never interrupted. The optimizer follows the weights.
        types = {name: parameter.dtype for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, parameter in self.model.named_parameters():
            if name in types:
                parameter.data = parameter.data.to(types[name])


def _are_finite(parameters: Iterable[torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in parameters)


def make_trainer(
    model: Any,
    tokenizer: Any,
    data: PreparedData,
    arguments: SFTConfig,
    callbacks: Sequence[TrainerCallback],
    saver: CheckpointSaver,
    at: Whereabouts,
) -> SafeTrainer:
    """A trainer over a model that is loaded and adapted already; its rows are tokens already."""
    trainer = SafeTrainer(
        model=model,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.saver, trainer.at = saver, at
    trainer.remove_callback(PrinterCallback)
    return trainer
