"""What layers were seen to hold, and the arithmetic over it, against whole steps of the model's own code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.memory.batch_shape import BatchShape
from core.memory.estimate import MemoryEstimate
from core.memory.layer_traces import LayerTraces, cached_traces, keep_traces
from core.memory.plan import ModelFacts, read_model
from core.models.architecture import detect
from core.models.loading import LoadRequest
from core.spec.run_spec import RunSpec
from tests.training.test_activations import FULL, LORA, NF4, OWN, ROWS, SHAPES, SIZES

LFM2: dict[str, Any] = {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False}


@pytest.fixture(scope="module")
def facts_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelFacts]:
    """What is known of a model whose configuration alone is on disk, its layers traced as on a GPU; made once."""
    from core.training.libraries import import_libraries

    import_libraries()
    from transformers import CONFIG_MAPPING, AutoConfig

    from core.memory.layer_tracing import traces_of
    from core.models.inventory import inventory_of

    parent = tmp_path_factory.mktemp("shapes")
    made: dict[str, ModelFacts] = {}

    def facts(model_type: str) -> ModelFacts:
        if model_type not in made:
            own = LFM2 if model_type == "lfm2" else OWN.get(model_type, {})
            CONFIG_MAPPING[model_type](**{**SIZES, **own}).save_pretrained(parent / model_type)
            config, known = AutoConfig.from_pretrained(parent / model_type), detect(parent / model_type)
            inventory = inventory_of(config, known.auto_class)
            traces = traces_of(config, known.auto_class, on_gpu=True)
            made[model_type] = ModelFacts(parent / model_type, known, (), inventory, traces=traces)
        return made[model_type]

    return facts


def estimated(facts: ModelFacts, spec: RunSpec, shape: BatchShape, attention: str) -> MemoryEstimate:
    from core.memory.spec_estimate import adapted_by, estimate_of
    from core.memory.step_parts import with_step

    memory = estimate_of(spec, facts.weights, "bfloat16", None)
    assert memory is not None
    adapted = adapted_by(spec, facts.weights) if spec.use_peft else ()
    return with_step(
        memory, spec, facts.weights, facts.architecture, adapted, dtype="bfloat16", attention=attention, shape=shape,
        on_gpu=True, traces=facts.traces,
    )  # fmt: skip


def spec_for(facts: ModelFacts, how: dict[str, Any], attention: str, shape: BatchShape, **values: Any) -> RunSpec:
    return RunSpec.model_validate(
        {"model_name_or_path": str(facts.folder), "datasets": [{"path": "rows"}], "use_peft": True,
         "dtype": "bfloat16", "lora_r": 16, "lora_dropout": 0.0, "attn_implementation": attention,
         "gradient_accumulation_steps": 1, "packing": shape.packed, "per_device_train_batch_size": ROWS,
         "optim": "adamw_torch_fused", **how, **values}
    )  # fmt: skip


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
    facts_of: Callable[[str], ModelFacts], model_type: str, cases: list[tuple[dict[str, Any], bool, str, str, float]]
) -> None:
    from core.memory.simulate import simulate

    facts = facts_of(model_type)
    for how, checkpointing, attention, batch, dropout in cases:
        shape = SHAPES[batch]
        spec = spec_for(facts, how, attention, shape, activation_checkpointing=checkpointing, lora_dropout=dropout)
        parts = {part.name: part for part in estimated(facts, spec, shape, attention).parts}
        assert "seen" in parts["activations"].basis
        found = (parts["activations"].bytes or 0) + (parts["logits"].bytes or 0)
        request = LoadRequest(facts.folder, facts.architecture, "bfloat16", attention, "cpu")
        simulation = simulate(spec, request, shape, on_gpu=True)
        assert found == pytest.approx(simulation.activations + simulation.logits, rel=0.05)


def test_a_llama_is_traced_kept_and_told_apart_from_formulas(
    tiny_model: Path, facts_of: Callable[[str], ModelFacts]
) -> None:
    from core.models.inventory import build_inventory

    facts, shape = facts_of("llama"), SHAPES["plain"]
    spec = spec_for(facts, LORA, "sdpa", shape)
    traced = estimated(facts, spec, shape, "sdpa").known_bytes
    by_formulas = estimated(replace(facts, traces=LayerTraces.none(on_gpu=True)), spec, shape, "sdpa")
    assert "by formulas" in by_formulas.parts[5].basis
    assert by_formulas.known_bytes == pytest.approx(traced, rel=0.05)

    # A second micro-batch finds the gradients of the first.
    more = spec_for(facts, FULL, "sdpa", shape, gradient_accumulation_steps=4, activation_checkpointing=True)
    one = more.model_copy(update={"gradient_accumulation_steps": 1})
    assert estimated(facts, more, shape, "sdpa").known_bytes > estimated(facts, one, shape, "sdpa").known_bytes

    traces, auto_class = facts.traces, detect(tiny_model).auto_class
    assert traces is not None
    build_inventory(tiny_model, auto_class)
    assert read_model(str(tiny_model)).wants_traces(on_gpu=True)
    keep_traces(tiny_model, auto_class, traces, on_gpu=True)
    assert cached_traces(tiny_model, auto_class) == traces
    known = read_model(str(tiny_model))
    assert (known.wants_traces(on_gpu=True), known.wants_traces(on_gpu=False)) == (False, True)
    with pytest.raises(ValueError, match="no traces"):
        LayerTraces.from_json({"devices": [], "steps": {"x": [1]}})
