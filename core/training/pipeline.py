"""One run from top to bottom: data, load, adapt, train, save."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers

from core.choice import Choice
from core.data.check import StoppedError
from core.data.rendering import DataRequest, PreparedData, prepare_data, sample_prompts
from core.devices.choose import choose_device
from core.devices.gpu import GpuMonitor
from core.devices.host import read_host
from core.memory.probe import probe
from core.models import adapters, first_weights, loading
from core.models.architecture import detect
from core.models.attention import attention_problem, choose_attention
from core.models.checkpoint_files import read_tensors, resolve_model_folder
from core.models.load_progress import LoadMeter
from core.models.precision import choose_dtype
from core.models.prequantized import stored_problems
from core.models.token_rows import fit_to_tokenizer
from core.models.tokenizer import check_tokenizer, load_tokenizer
from core.paths import write_atomically
from core.runs import events
from core.runs.checkpoints import checkpoint_to_resume, committed_checkpoints, discard_after, flush, step_of
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.runs.queue import needed_bytes
from core.spec.problems import SpecError
from core.spec.run_spec import RunSpec
from core.spec.yaml_file import read_spec, to_yaml
from core.training.callbacks import CommandCallback, JournalCallback, PulseCallback, WatchCallback, settle_device
from core.training.control import RunControl
from core.training.data_of_run import keep_to_data
from core.training.first_batch import check_first_batch
from core.training.peak import PeakCallback, PeakMeter
from core.training.sample_callback import Asking, SampleCallback
from core.training.saving import CheckpointSaver
from core.training.sft import make_trainer, training_arguments
from core.training.step_clock import StepClock
from core.training.troubles import TroubleDesk
from core.training.whereabouts import Whereabouts

Emit = Callable[[Event], object]


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every phase needs."""

    spec: RunSpec
    folder: RunFolder
    emit: Emit
    control: RunControl
    resume_step: int | None = None
    """The step of the checkpoint to go on from; None for the newest."""
    at: Whereabouts = field(default_factory=Whereabouts)
    """Where the run is."""

    def notice(self, title: str, message: str) -> None:
        """Tell what a person should know though the run goes on."""
        self.emit(events.ProblemNoticed(title, message))

    def tell(self, choice: Choice) -> None:
        """Tell what was chosen, and why."""
        self.emit(events.ChoiceMade(choice.name, choice.value, choice.reason))


def run_pipeline(run: RunContext) -> events.TerminalEvent:
    """Do the whole run and return its end; RunStopped if a stop was asked for. Raises what goes wrong."""
    began = time.monotonic()
    transformers.logging.disable_progress_bar()

    run.emit(events.PhaseStarted("preparing", "reading the data"))
    request = _load_request(run)
    tokenizer = load_tokenizer(
        request.folder,
        run.notice,
        trusted=loading.trusts_own_code(request),
        chat_template_path=run.spec.chat_template_path,
    )
    data = _prepare_data(run, tokenizer, request.folder)

    with contextlib.closing(data):
        return _train(run, request, tokenizer, data, began)


def _train(
    run: RunContext, request: loading.LoadRequest, tokenizer: Any, data: PreparedData, began: float
) -> events.TerminalEvent:
    spec, emit, control = run.spec, run.emit, run.control
    emit(events.PhaseStarted("loading", Path(spec.model_name_or_path).name))
    # PEFT draws the adapters' first weights: the seed must stand before they are made.
    transformers.set_seed(spec.seed)
    run.at.meter = peak = PeakMeter(run.at.gpu, needed_bytes(run.folder))
    run.at.longest_tokens = int(data.train.lengths.max(initial=0))
    meter = LoadMeter(
        request.folder, read_tensors(request.folder), lambda *done: emit(events.LoadProgressed(*done)), control.check
    )
    model = loading.load_model(spec, request, run.notice, meter)
    trusted = loading.trusts_own_code(request)
    new_tokens = fit_to_tokenizer(model, tokenizer, request.folder, run.tell, trusted=trusted)
    check_tokenizer(tokenizer, model, run.notice)
    emit(
        events.ModelLoaded(
            auto_class=request.architecture.auto_class,
            model_type=request.architecture.model_type,
            parameters=loading.parameter_count(model),
            weight_bytes=loading.weight_bytes(model),
            dtype=request.dtype,
            device=request.device,
            attention=str(model.config._attn_implementation),
        )
    )
    control.check()

    asking = Asking(tokenizer, sample_prompts(spec, data), control, emit)
    if not spec.use_peft or first_weights.changes_base(spec):
        # Afterwards the base is gone; adapters can be switched off instead, so that training need not wait.
        asking.base(model, adapted=False)
        control.check()

    emit(events.PhaseStarted("adapting", "attaching adapters" if spec.use_peft else "every weight is trained"))
    if spec.use_peft:
        model = adapters.attach_adapters(model, spec, run.tell, new_tokens)
    else:
        adapters.freeze_towers(model, spec)
    first = first_weights.first_weights(model, spec)
    emit(
        events.ModelAdapted(
            trainable_parameters=adapters.trainable_parameters(model),
            total_parameters=loading.parameter_count(model),
            target_modules=adapters.adapted_modules(model) if spec.use_peft else (),
        )
    )
    control.check()

    arguments = training_arguments(spec, run.folder, request.dtype, request.device)
    saver = CheckpointSaver(run.folder, spec.save_total_limit, emit, control)
    clock = StepClock(settle_device)
    sample_every = spec.sftui.sample_every
    callbacks = [
        JournalCallback(emit, clock, sample_every),
        WatchCallback(TroubleDesk(spec.sftui, emit, control)),
        PeakCallback(peak, emit),
        SampleCallback(asking, model, sample_every, control, emit),
        CommandCallback(emit, control, saver),
        PulseCallback(control.pulse, clock),
    ]
    trainer = make_trainer(model, tokenizer, data, arguments, callbacks, saver, run.at)
    control.check()

    # A run that was stopped or killed goes on from its last whole checkpoint; a new one has none.
    checkpoint = checkpoint_to_resume(run.folder, run.resume_step)
    keep_to_data(run.folder, data, resumes=checkpoint is not None)
    run.tell(check_first_batch(trainer, tokenizer, data))
    for gone in discard_after(run.folder, step_of(checkpoint) if checkpoint else 0):
        emit(events.CheckpointDeleted(f"{gone.parent.name}/{gone.name}"))
    if spec.use_peft and spec.sftui.init_lora_weights == "eva" and checkpoint is None:
        emit(events.PhaseStarted("adapting", "looking in the rows for what the adapters start from"))
        first_weights.start_with_eva(model, trainer.get_train_dataloader(), control.check)
    if request.dtype == "float16":
        adapters.keep_trained_weights_in_float32(model)
    if spec.sftui.probe:
        emit(events.PhaseStarted("training", "probing the memory: two steps on the longest rows"))
        total = run.at.gpu.total_bytes if run.at.gpu is not None else read_host(run.folder.path).memory_total_bytes
        emit(probe(trainer, peak, total, control.check))
    step = _to_the_end(run, trainer, saver, checkpoint)
    if control.stop_requested and (step < trainer.state.max_steps or not control.may_save):
        saved = _checkpoint_of(run.folder, step, control.good_step)
        return events.RunStopped(step, saved, control.stop_reason, time.monotonic() - began, control.releases)

    emit(events.PhaseStarted("saving", "the adapter" if spec.use_peft else "the model"))
    result = run.folder.adapter if spec.use_peft else run.folder.model
    if not saver.until_taken(step, result, lambda: _save(trainer, result, first)):
        saved = _checkpoint_of(run.folder, step)
        return events.RunStopped(step, saved, control.stop_reason, time.monotonic() - began, control.releases)
    asking.base(model, adapted=True)
    asking.tuned(model, step)
    return events.RunFinished(step, result.name, time.monotonic() - began)


def _prepare_data(run: RunContext, tokenizer: Any, folder: Path) -> PreparedData:
    try:
        data = prepare_data(run.spec, DataRequest(tokenizer, folder, run.emit, lambda: run.control.stop_requested))
    except StoppedError:
        run.control.check()
        raise
    for choice in data.tokenizer.choices:
        run.tell(choice)
    for problem in data.tokenizer.problems:
        run.notice(problem.field, f"{problem.message} {problem.fix}")
    run.emit(data.told)
    run.control.check()
    return data


def _to_the_end(run: RunContext, trainer: Any, saver: CheckpointSaver, checkpoint: Path | None) -> int:
    """Train to the end or to a stop, and return the last step. On the way the length may be changed."""
    while True:
        run.emit(events.PhaseStarted("training", f"from {checkpoint.name}" if checkpoint else ""))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        step = int(trainer.state.global_step)
        length = run.control.take_length()
        if length is None or run.control.stop_requested or not saver.has(step):
            return step
        run.emit(events.LengthChanged(step, length.max_steps, length.epochs))
        trainer.args.max_steps = length.max_steps if length.max_steps is not None else -1
        trainer.args.num_train_epochs = length.epochs if length.epochs is not None else trainer.args.num_train_epochs
        change = {"max_steps": trainer.args.max_steps, "num_train_epochs": trainer.args.num_train_epochs}
        # Whoever resumes the run goes on to the same end.
        write_atomically(run.folder.spec_file, to_yaml(read_spec(run.folder.spec_file).model_copy(update=change)))
        checkpoint = saver.place(step)
        if length.max_steps is not None and step >= length.max_steps:
            return step


def _load_request(run: RunContext) -> loading.LoadRequest:
    spec = run.spec
    folder = resolve_model_folder(spec.model_name_or_path, spec.model_revision)
    architecture = detect(folder, spec.sftui.preference)
    monitor = GpuMonitor()
    reading = monitor.read()
    device = choose_device(spec.sftui.device, reading, os.environ)
    monitor.close()
    run.at.gpu, run.at.driver = device.gpu, reading.driver_version
    dtype = choose_dtype(spec, architecture.stored_dtype, device.gpu)
    attention = choose_attention(spec, device.gpu, architecture)
    run.emit(events.ChoiceMade("auto_class", architecture.auto_class, architecture.reason))
    for choice in (device.choice, dtype, attention):
        run.tell(choice)
    # The plan says the same; a run can be started without one, and on another machine.
    unfit = attention_problem(spec, device.gpu, architecture, dtype.value)
    problems = (*stored_problems(spec, architecture), *((unfit,) if unfit else ()))
    if problems:
        raise SpecError(problems)
    # The launcher has hidden every other GPU, so that the chosen one is the first.
    torch_device = "cpu" if device.gpu is None else "cuda:0"
    return loading.LoadRequest(folder, architecture, dtype.value, spec.attn_implementation, torch_device)


def _checkpoint_of(folder: RunFolder, step: int, good_step: int | None = None) -> str | None:
    """The checkpoint to go on from: that of the step, or the newest up to `good_step`, or else the newest."""
    checkpoints = committed_checkpoints(folder)
    if good_step is not None:
        checkpoints = tuple(path for path in checkpoints if step_of(path) <= good_step) or checkpoints
    elif checkpoints and step_of(checkpoints[-1]) != step:
        return None
    if not checkpoints:
        return None
    return f"{folder.checkpoints.name}/{checkpoints[-1].name}"


def _save(trainer: Any, target: Path, first: first_weights.FirstWeights) -> None:
    """Write the result beside its place and rename it, so that it is there whole or not at all."""
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    trainer.save_model(str(beside))
    first_weights.write_plain(beside, first)
    if (generation := trainer.model.generation_config) is not None:
        # PEFT leaves it out, and with it the tokens that answers end with.
        generation.save_pretrained(str(beside))
    # A pickle with this machine's arguments: of no use to a user, and nothing to be loaded from.
    (beside / "training_args.bin").unlink(missing_ok=True)
    flush(beside)
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)
