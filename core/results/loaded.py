"""A run's base model with its result on top, loaded once, as the run loads it."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import GenerationConfig

from core import permissions
from core.devices.choose import choose_device
from core.devices.gpu import GpuMonitor
from core.errors import SftuiError
from core.models import loading
from core.models.architecture import detect
from core.models.checkpoint_files import read_tensors, resolve_model_folder
from core.models.load_progress import LoadMeter
from core.models.precision import choose_dtype
from core.models.token_rows import fit_to_tokenizer
from core.models.tokenizer import load_tokenizer
from core.results.asking import BASE
from core.results.result import Result, check_result
from core.runs.folder import RunFolder
from core.spec.run_spec import RunSpec
from core.spec.yaml_file import read_spec

Notice = Callable[[str, str], object]
Hear = Callable[[str, int, int], object]
"""Told what is loaded, bytes that are done and all bytes."""


@dataclass(frozen=True, slots=True)
class LoadedResult:
    """Models that answer; adapters of several results share one base."""

    spec: RunSpec
    request: loading.LoadRequest
    tokenizer: Any
    models: dict[str, Any]
    """By side. Results that are adapters are one model, which has an adapter of each name."""
    generation: Any
    """The generation config that goes with the results; None where the model has none."""
    base: str = BASE
    """The side that the adapters are switched off for."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Who can be asked."""
        return tuple(self.models)

    @contextlib.contextmanager
    def answering(self, side: str) -> Iterator[Any]:
        """The model of a side, for as long as the block lasts. Raises SftuiError for a side that is not loaded."""
        if side not in self.models:
            raise SftuiError("Not loaded", f"{side} is none of {', '.join(self.models)}.")
        model = self.models[side]
        # Another run's results on the same base may end their answers in another way.
        model.generation_config = self.generation
        if not isinstance(model, PeftModel):
            yield model
        elif side == self.base:
            with model.disable_adapter():
                yield model
        else:
            model.set_adapter(_adapter_name(side))
            yield model


def read_run_spec(run: RunFolder) -> RunSpec:
    """The run's spec, without what its user has not allowed to run here. Raises SftuiError."""
    spec = read_spec(run.spec_file)
    return permissions.without(spec, permissions.missing(spec))


def base_request(spec: RunSpec, dtype: str | None = None, device: str | None = None) -> loading.LoadRequest:
    """How the run's base model is loaded here. `dtype` and `device` (auto, cpu, a GPU) take the place of the spec's.

    Raises SftuiError where the model is not there.
    """
    folder = resolve_model_folder(spec.model_name_or_path, spec.model_revision)
    architecture = detect(folder, spec.sftui.preference)
    monitor = GpuMonitor()
    try:
        reading = monitor.read()
        try:
            chosen = choose_device(device or spec.sftui.device, reading, os.environ)
        except SftuiError:
            # The run may have had another machine's GPU; whoever names one here means it.
            if device is not None:
                raise
            chosen = choose_device("auto", reading, os.environ)
    finally:
        monitor.close()
    found = dtype or choose_dtype(spec, architecture.stored_dtype, chosen.gpu).value
    where = "cpu" if chosen.gpu is None else "cuda:0"
    return loading.LoadRequest(folder, architecture, found, spec.attn_implementation, where)


def load_result(
    results: tuple[Result, ...],
    hear: Hear,
    check: Callable[[], object],
    notice: Notice,
    device: str | None = None,
) -> LoadedResult:
    """The base of a run and some of its results. `check` may end the loading with an exception of its own.

    The type that was computed in and the quantization are the run's. Raises SftuiError.
    """
    first = results[0]
    spec = read_run_spec(first.run)
    for result in results:
        check_result(result, spec)
    loaded = first.run.read_state().loaded
    request = base_request(spec, loaded.dtype if loaded else None, device)
    tokenizer = result_tokenizer(first.path, spec, request, notice)
    base = load_base(spec, request, tokenizer, hear, check, notice)
    models = {BASE: base}
    for result in results:
        check()
        models[result.name] = load_onto(models[BASE], result, result.name, spec, request, hear, check, notice)
        if result.kind == "adapter":
            models[BASE] = models[result.name]
    return LoadedResult(spec, request, tokenizer, models, generation_config(first.path, base))


def load_base(
    spec: RunSpec,
    request: loading.LoadRequest,
    tokenizer: Any,
    hear: Hear,
    check: Callable[[], object],
    notice: Notice,
) -> Any:
    """A run's base model, with a row for each token of its tokenizer. Raises SftuiError."""
    base = _load(spec, request, hear, check, notice, "the base model")
    fit_to_tokenizer(base, tokenizer, request.folder, lambda _: None, trusted=loading.trusts_own_code(request))
    return base


def load_onto(
    base: Any,
    result: Result,
    side: str,
    spec: RunSpec,
    request: loading.LoadRequest,
    hear: Hear,
    check: Callable[[], object],
    notice: Notice,
) -> Any:
    """The model that answers for a side: the base with the result's adapter, or a whole model. Raises SftuiError.

    An adapter changes the base: from then on, only the model that is returned may be asked for it.
    """
    if result.kind == "adapter":
        hear("the adapter", 0, 0)
        return _with_adapter(base, result, _adapter_name(side), request.device)
    own = replace(request, folder=result.path, architecture=detect(result.path, spec.sftui.preference))
    return _load(spec, own, hear, check, notice, "the trained model")


def result_tokenizer(path: Path, spec: RunSpec, request: loading.LoadRequest, notice: Notice) -> Any:
    """The tokenizer that was saved with the weights, with its chat template; else the run's own, made anew."""
    trusted = loading.trusts_own_code(request)
    if (path / "tokenizer_config.json").is_file():
        return load_tokenizer(path, notice, trusted=trusted)
    return load_tokenizer(request.folder, notice, trusted=trusted, chat_template_path=spec.chat_template_path)


def _load(
    spec: RunSpec,
    request: loading.LoadRequest,
    hear: Hear,
    check: Callable[[], object],
    notice: Notice,
    what: str,
) -> Any:
    hear(what, 0, 0)
    meter = LoadMeter(
        request.folder, read_tensors(request.folder), lambda done, total, *_: hear(what, done, total), check
    )
    return loading.load_model(spec, request, notice, meter).eval()


def _adapter_name(side: str) -> str:
    # PyTorch takes no dots in the name of a part.
    return side.replace(".", "_")


def _with_adapter(model: Any, result: Result, name: str, device: str) -> Any:
    folder = str(result.path)
    if isinstance(model, PeftModel):
        model.load_adapter(folder, adapter_name=name, torch_device=device)
    else:
        model = PeftModel.from_pretrained(model, folder, adapter_name=name, torch_device=device)
    return model.eval()


def generation_config(path: Path, model: Any) -> Any:
    """What was saved with the weights; else a copy of what the model has now."""
    if not (path / "generation_config.json").is_file():
        return copy.deepcopy(model.generation_config)
    return GenerationConfig.from_pretrained(str(path))
