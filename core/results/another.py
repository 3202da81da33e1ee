"""Another run's result beside one that is loaded: over the same base model where the runs started from the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.errors import SftuiError
from core.models import loading
from core.results.asking import BASE
from core.results.loaded import (
    Hear,
    LoadedResult,
    Notice,
    base_request,
    generation_config,
    load_base,
    load_onto,
    read_run_spec,
    result_tokenizer,
)
from core.results.result import Result, check_result
from core.results.room import lack_of_room
from core.spec.run_spec import RunSpec
from core.text import safe


def side_of(result: Result) -> str:
    """What a result is called among those of another run."""
    return result.run.id if result.step is None else f"{result.run.id} {result.name}"


def load_beside(
    there: LoadedResult, result: Result, hear: Hear, check: Callable[[], object], notice: Notice
) -> LoadedResult:
    """Load it in the type and the quantization of its run, on the device of what is there.

    Its own base becomes a side too where it cannot share the one that is there; `notice` is told why. Raises SftuiError
    where there is no room for that.
    """
    spec = read_run_spec(result.run)
    check_result(result, spec)
    loaded = result.run.read_state().loaded
    device = "cpu" if there.request.device == "cpu" else None
    request = replace(base_request(spec, loaded.dtype if loaded else None, device), device=there.request.device)
    tokenizer = result_tokenizer(result.path, spec, request, notice)
    side, base_side = side_of(result), BASE
    why = _why_not_shared(there, spec, request, tokenizer)
    copies = bool(why) + (result.kind == "model")
    lacking = lack_of_room(copies * loaded.weight_bytes, request.device) if loaded else ""
    if lacking:
        own = f" It needs a base model of its own: {why}." if why else ""
        raise SftuiError(
            "No room for a second model",
            f"What {safe(result.run.id)} made {lacking}.{own}",
            "Ask the runs one after the other, or free some memory.",
        )
    if why:
        notice("Two base models are in memory", f"{safe(result.run.id)} cannot share the other run's: {why}.")
        base, base_side = load_base(spec, request, tokenizer, hear, check, notice), f"base of {result.run.id}"
    else:
        base = there.models[there.base]
    check()
    generation = generation_config(result.path, base)
    models = {side: load_onto(base, result, side, spec, request, hear, check, notice)}
    if result.kind == "adapter":
        base = models[side]
    if why:
        models = {base_side: base, **models}
    else:
        # An adapter that came onto it has to be switched off for it from now on.
        there.models[there.base] = base
    return LoadedResult(spec, request, tokenizer, models, generation, base_side)


def reads_alike(one: LoadedResult, other: LoadedResult) -> bool:
    """Whether the same row becomes the same tokens for both."""
    return bool(
        one.tokenizer.chat_template == other.tokenizer.chat_template
        and one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    )


def may_have_learnt(one: LoadedResult, other: LoadedResult) -> bool:
    """Whether the other run may have been trained on rows that the first one held out."""
    return _rows_of(one.spec) != _rows_of(other.spec)


def _why_not_shared(there: LoadedResult, spec: RunSpec, request: loading.LoadRequest, tokenizer: Any) -> str:
    if request.folder != there.request.folder:
        return f"it started from another model, {safe(spec.model_name_or_path)}"
    here, other = _precision(spec, request), _precision(there.spec, there.request)
    if here != other:
        return f"it learnt on its base in {here}, the other one in {other}"
    if request.architecture != there.request.architecture:
        return "the model was loaded as another class"
    if tokenizer.get_vocab() != there.tokenizer.get_vocab():
        return "it has other tokens"
    return ""


def _precision(spec: RunSpec, request: loading.LoadRequest) -> str:
    nested = " with nested constants" if spec.load_in_4bit and spec.use_bnb_nested_quant else ""
    return f"{request.dtype}" if spec.quantization == "none" else f"{spec.quantization}{nested} and {request.dtype}"


def _rows_of(spec: RunSpec) -> tuple[object, ...]:
    return spec.datasets, spec.test_split_size, spec.test_split_size and spec.seed, spec.sftui.held_out_file
