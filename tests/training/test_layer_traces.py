"""What layers were seen to hold, and the arithmetic over it, against whole steps of the model's own code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.memory.batch_shape import BatchShape
from core.memory.layer_traces import LayerTraces, cached_traces, keep_traces
from core.memory.plan import read_model
from core.models.architecture import detect
from core.models.loading import LoadRequest
from tests.training.estimated import estimated, facts_of
from tests.training.test_activations import FULL, LORA, NF4, ROWS, SHAPES, spec_for
from tests.wide_families import wide_config


@pytest.fixture
def model_of(tmp_path: Path) -> Callable[[str], Path]:
    """A folder with the configuration of a model: nothing here needs its weights."""
    from core.training.libraries import import_libraries

    import_libraries()

    def folder(model_type: str) -> Path:
        wide_config(model_type).save_pretrained(tmp_path / model_type)
        return tmp_path / model_type

    return folder


@pytest.mark.parametrize(
    ("model_type", "cases"),
    [
        ("gpt_neox", [(LORA, False, "eager", "plain", 0.0), (NF4, True, "sdpa", "packed", 0.0)]),
        ("gemma3_text", [(LORA, True, "sdpa", "plain", 0.1), (FULL, False, "sdpa", "packed", 0.0)]),
        ("lfm2", [(NF4, False, "sdpa", "plain", 0.0), (LORA, True, "sdpa", "plain", 0.0)]),
        ("mixtral", [(NF4, False, "sdpa", "plain", 0.0)]),
    ],
)
def test_it_holds_what_two_steps_hold(
    model_of: Callable[[str], Path], model_type: str, cases: list[tuple[dict[str, Any], bool, str, str, float]]
) -> None:
    from core.memory.simulate import simulate

    model = model_of(model_type)
    for how, checkpointing, attention, batch, dropout in cases:
        shape, values = SHAPES[batch], {"activation_checkpointing": checkpointing, "lora_dropout": dropout}
        spec = spec_for(model, how, attention, packed=shape.packed, rows=ROWS, **values)
        planned = estimated(spec, shape, on_gpu=True)
        assert planned.traced
        request = LoadRequest(model, detect(model), "bfloat16", attention, "cpu")
        simulation = simulate(spec, request, shape, on_gpu=True)
        assert planned.step == pytest.approx(simulation.activations + simulation.logits, rel=0.05)


def test_a_row_alone_is_kept_larger_by_some_models_with_eager_attention(model_of: Callable[[str], Path]) -> None:
    from core.memory.layer_pass import ExampleLayers
    from core.memory.layer_tracing import DTYPES, holds_more_of_one_row
    from core.memory.simulate import simulate

    model, shape = model_of("gpt_neox"), BatchShape(1, 128, 128, packed=False)
    spec = spec_for(model, LORA, "eager", packed=False, rows=1, activation_checkpointing=False)
    request = LoadRequest(model, detect(model), "bfloat16", "eager", "cpu")
    planned, simulation = estimated(spec, shape, on_gpu=True), simulate(spec, request, shape, on_gpu=True)
    assert planned.kept == pytest.approx(simulation.kept, rel=0.02)
    # Those that do not are not traced twice.
    for model_type, alone in (("gpt_neox", True), ("llama", False)):
        layers = ExampleLayers(wide_config(model_type), "AutoModelForCausalLM", DTYPES[16], "eager", False)
        assert holds_more_of_one_row(layers, "adapters", on_gpu=True) is alone


def test_few_tokens_hold_what_the_weights_of_a_layer_weigh(model_of: Callable[[str], Path]) -> None:
    from core.memory.simulate import simulate

    model = model_of("mistral")
    config = json.loads((model / "config.json").read_text())
    # Wide layers and a small vocabulary, so that it is a layer that holds most.
    (model / "config.json").write_text(
        json.dumps(config | {"hidden_size": 1024, "intermediate_size": 8192, "vocab_size": 128})
    )
    spec = spec_for(model, NF4, "sdpa", packed=False, rows=2)
    for tokens in (192, 768):
        shape = BatchShape(2, tokens, 2 * tokens, packed=False)
        simulation = simulate(spec, LoadRequest(model, detect(model), "bfloat16", "sdpa", "cpu"), shape, on_gpu=True)
        held = simulation.activations + simulation.logits
        assert estimated(spec, shape, on_gpu=True).step == pytest.approx(held, rel=0.1)


def test_a_llama_is_traced_kept_and_told_apart_from_formulas(tiny_model: Path, model_of: Callable[[str], Path]) -> None:
    from core.models.inventory import build_inventory

    model, shape = model_of("llama"), SHAPES["plain"]
    spec = spec_for(model, LORA, "sdpa", packed=False, rows=ROWS)
    traced, by_formulas = (estimated(spec, shape, on_gpu=True, traced=traced) for traced in (True, False))
    assert (traced.traced, by_formulas.traced) == (True, False)
    assert by_formulas.peak == pytest.approx(traced.peak, rel=0.05)
    assert "seen to hold" in traced.basis
    assert "by formulas" in by_formulas.basis

    # A second micro-batch finds the gradients of the first.
    more, one = (
        spec_for(model, FULL, "sdpa", packed=False, rows=ROWS, gradient_accumulation_steps=steps) for steps in (4, 1)
    )
    assert estimated(more, shape, on_gpu=True).peak > estimated(one, shape, on_gpu=True).peak

    auto_class = detect(tiny_model).auto_class
    made = facts_of(model).traces
    assert made is not None
    traces = LayerTraces(dict(made.by_condition), frozenset({"gpu"}))
    build_inventory(tiny_model, auto_class)
    assert read_model(str(tiny_model)).wants_traces(on_gpu=True)
    keep_traces(tiny_model, auto_class, traces, on_gpu=True)
    assert cached_traces(tiny_model, auto_class) == traces
    known = read_model(str(tiny_model))
    assert (known.wants_traces(on_gpu=True), known.wants_traces(on_gpu=False)) == (False, True)
    with pytest.raises(ValueError, match="no traces"):
        LayerTraces.from_json({"devices": [], "steps": {"x": [1]}})
