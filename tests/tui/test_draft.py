"""The draft of a run: what is typed is kept, what is known is kept as long as it is true."""

from pathlib import Path

from core.data.check import read_facts
from core.memory.plan import read_model
from tests.tui.setup_helpers import HOST, NO_GPU, make_model, make_rows, one_gpu
from tui_app.draft import Draft, step_of
from tui_app.messages import REMOVED
from tui_app.source_text import source_texts, typed_sources

pytest_plugins = ["tests.tui.setup_helpers"]


def _ready(home: Path) -> Draft:
    folder, file = make_model(home / "tiny"), make_rows(home / "a.jsonl")
    draft = Draft.of({"model_name_or_path": str(folder), "datasets": [{"path": str(file)}]})
    return draft.with_devices(NO_GPU, HOST).with_model(read_model(str(folder))).with_data(read_facts([file]))


def test_a_complete_draft_is_a_spec_with_a_plan_and_every_step_is_done(home: Path) -> None:
    draft = _ready(home)
    assert draft.spec is not None
    assert draft.plan is not None
    assert draft.plan.memory is not None
    assert draft.errors == ()
    assert all(draft.done(step) for step in ("model", "data", "precision", "training", "review"))


def test_an_empty_draft_names_what_is_missing_and_where(home: Path) -> None:
    draft = Draft.of({}).with_devices(NO_GPU, HOST)
    assert [(problem.field, step_of(problem.field)) for problem in draft.errors] == [
        ("model_name_or_path", "model"),
        ("datasets", "data"),
    ]
    assert not any(draft.done(step) for step in ("model", "data", "precision", "training", "review"))
    assert draft.plan is not None, "the device is known before there is a model"


def test_a_wrong_value_is_kept_as_typed_and_the_plan_goes_on_without_it(home: Path) -> None:
    before = _ready(home).changed({"use_peft": True})
    draft = before.changed({"lora_r": "many"})
    assert draft.values["lora_r"] == "many"
    assert draft.spec is None
    assert [problem.field for problem in draft.errors] == ["lora_r"]
    assert draft.left_out == ("lora_r",)
    assert draft.plan is not None and before.plan is not None
    assert draft.plan.memory == before.plan.memory
    assert not draft.done("precision")
    assert draft.done("training")


def test_options_are_set_unset_and_dotted(home: Path) -> None:
    draft = Draft.of({"seed": 7}).changed({"sftui.name": "mine", "sftui.notes": "x", "seed": REMOVED})
    assert draft.values == {"sftui": {"name": "mine", "notes": "x"}}
    assert draft.changed({"sftui.name": REMOVED}).values == {"sftui": {"notes": "x"}}
    assert draft.changed({"sftui.name": REMOVED, "sftui.notes": REMOVED}).values == {}
    assert draft.values == {"sftui": {"name": "mine", "notes": "x"}}, "a draft never changes itself"


def test_facts_stay_while_their_path_does_and_go_with_it(home: Path) -> None:
    draft = _ready(home)
    kept = draft.changed({"learning_rate": 1e-3})
    assert kept.model is draft.model
    assert kept.data is draft.data
    other_model = draft.changed({"model_name_or_path": "elsewhere"})
    assert other_model.model is None
    assert other_model.needs_model
    assert other_model.data is draft.data
    other_data = draft.changed({"datasets": [{"path": "b.jsonl"}]})
    assert other_data.data is None
    assert other_data.needs_data
    assert other_data.model is draft.model


def test_sources_are_told_in_every_way_trl_names_them() -> None:
    values = {
        "datasets": [{"path": "json", "data_files": ["a.jsonl", "b.jsonl"]}, "c.jsonl", {"wrong": 1}, {"path": "~/d"}]
    }
    assert source_texts(values) == ("a.jsonl", "b.jsonl", "c.jsonl", "~/d")


def test_sources_are_typed_with_config_split_and_share() -> None:
    texts = ["a.jsonl 50%", "owner/name:en@test[:10%]", "owner/name", "folder/*.csv", "x/y.jsonl"]
    entries = [
        {"path": "a.jsonl", "fraction": 0.5},
        {"path": "owner/name", "name": "en", "split": "test[:10%]"},
        {"path": "owner/name"},
        {"path": "folder/*.csv"},
        {"path": "x/y.jsonl"},
    ]
    assert typed_sources(texts, {}) == entries
    assert list(source_texts({"datasets": entries})) == texts


def test_a_source_keeps_what_its_text_does_not_tell() -> None:
    entry = {"path": "owner/name", "data_dir": "en", "columns": ["q", "a"]}
    assert typed_sources(["b.jsonl", "owner/name"], {"datasets": [entry]}) == [{"path": "b.jsonl"}, entry]


def test_a_gpu_changes_device_and_verdict(home: Path) -> None:
    draft = _ready(home).with_devices(one_gpu(), HOST)
    assert draft.plan is not None
    assert draft.plan.device.kind == "gpu"
    starved = draft.with_devices(one_gpu(total=80 * 10**9, free=1000), HOST)
    assert starved.plan is not None
    assert starved.plan.verdict == "does_not_fit"
    assert not starved.done("precision"), "a tick would say that all is well there"
    assert starved.errors == (), "but it may be tried"


def test_contradictions_do_not_wait_for_model_and_data() -> None:
    draft = Draft.of({"eval_strategy": "steps"})
    assert [problem.field for problem in draft.problems_of("training")] == ["eval_strategy"]
