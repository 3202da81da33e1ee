"""A spec thought through on a machine: device, choices, memory, verdict and every problem beside its option."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import starter
from core.data.check import check, read_facts
from core.data.data_problems import token_problems
from core.data.request import training_request
from core.data.token_statistics import Batching, TokenCounts, statistics
from core.devices.gpu import GpuReading
from core.devices.host import HostSnapshot
from core.memory.calibration import Record, record, versions_here
from core.memory.estimate import MemoryPart
from core.memory.plan import ModelFacts, Plan, describe_plan, make_plan, plan_here, read_model
from core.models.inventory_file import Inventory, InventoryParameter
from core.spec.build import build_spec, check_values
from core.spec.presets import PRESETS
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from tests.unit.test_choose_device import NONE, gpu, reading
from tests.unit.test_token_statistics import counts_of

GB = 10**9
HOST = HostSnapshot(4, 0.0, 16 * GB, 8 * GB, 8 * GB, 100 * GB, "A CPU")
ONE_GPU = reading(gpu(0, 20 * GB, total_bytes=24 * GB, used_bytes=4 * GB, name="NVIDIA L4"))
PARTS = [
    "base_weights", "quantization_constants", "adapter_weights", "gradients", "optimizer_state", "activations",
    "logits", "allocator_and_context",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> ModelFacts:
    return read_model(str(starter.MODEL))


def spec(**values: Any) -> RunSpec:
    base = {"model_name_or_path": str(starter.MODEL), "datasets": [str(starter.TRAIN_DATA)]}
    checked = check_values({**base, **PRESETS["qlora"].values, **values})
    assert checked.spec is not None, checked.problems
    return checked.spec


def problems(plan: Plan) -> list[tuple[str, str]]:
    return [(problem.field, problem.message) for problem in plan.problems if problem.level == "error"]


def test_offloading_needs_a_gpu_to_offload_from(model: ModelFacts) -> None:
    asked = spec(activation_offloading=True)
    assert [field for field, _ in problems(make_plan(asked, model, NONE, HOST))] == ["activation_offloading"]
    assert not problems(make_plan(asked, model, ONE_GPU, HOST))


def rows(folder: Path, *given: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return file


def test_a_plan_names_its_device_and_its_choices_with_reasons(model: ModelFacts) -> None:
    plan = make_plan(spec(), model, ONE_GPU, HOST)
    assert (plan.device.name, plan.device.kind, plan.device.index) == ("NVIDIA L4", "gpu", 0)
    assert (plan.device.total_bytes, plan.device.free_bytes) == (24 * GB, 20 * GB)
    assert [(choice.name, choice.value) for choice in plan.choices] == [
        ("auto_class", "AutoModelForCausalLM"),
        ("device", "GPU 0 NVIDIA L4"),
        ("dtype", "bfloat16"),
        ("attn_implementation", "sdpa"),
    ]
    assert all(choice.reason for choice in plan.choices)
    on_cpu = make_plan(spec(), model, NONE, HOST)
    assert (on_cpu.device.kind, on_cpu.device.total_bytes, on_cpu.device.free_bytes) == ("cpu", 16 * GB, 8 * GB)


def test_the_command_at_the_end_is_named_before_it_runs(model: ModelFacts) -> None:
    for command in ("notify 'all done'", ["notify", "all done"]):
        plan = make_plan(spec(sftui={"on_finish": command}), model, ONE_GPU, HOST)
        (choice,) = (choice for choice in plan.choices if choice.name == "sftui.on_finish")
        assert choice.value == "notify 'all done'"


def test_cuda_visible_devices_is_heeded(model: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert make_plan(spec(), model, ONE_GPU, HOST).device.kind == "cpu"


def test_all_parts_are_counted_and_the_verdict_names_what_is_to_spare(model: ModelFacts) -> None:
    plan = make_plan(spec(), model, ONE_GPU, HOST)
    assert plan.verdict == "fits"
    assert "to spare" in plan.verdict_reason
    assert plan.memory is not None
    assert plan.memory.total_is_complete
    assert {part.name: part.level for part in plan.memory.parts}["activations"] == "estimated"


def test_rows_of_no_known_length_leave_the_verdict_open(model: ModelFacts) -> None:
    plan = make_plan(spec(max_length=None), model, ONE_GPU, HOST)
    assert plan.verdict == "unknown"
    assert "activations, logits" in plan.verdict_reason


def test_rows_that_are_counted_are_planned_as_long_as_they_are(model: ModelFacts) -> None:
    lengths = statistics(counts_of([10, 90]), Batching(1024, 4))
    long, short = (make_plan(spec(), model, ONE_GPU, HOST, lengths=known) for known in (None, lengths))
    assert long.memory is not None
    assert short.memory is not None
    assert short.memory.known_bytes < long.memory.known_bytes
    assert "90 tokens" in next(part.basis for part in short.memory.parts if part.name == "activations")


def test_what_earlier_runs_held_corrects_the_next_plan(model: ModelFacts) -> None:
    def allocator() -> MemoryPart:
        memory = make_plan(spec(), model, ONE_GPU, HOST).memory
        assert memory is not None
        return next(part for part in memory.parts if part.name == "allocator_and_context")

    before = allocator()
    name, driver = ONE_GPU.gpus[0].name, ONE_GPU.driver_version or ""
    for _ in range(3):
        record(Record(name, driver, versions_here(), 5 * GB, 0, 6 * GB))
    after = allocator()
    assert after.bytes == (before.bytes or 0) + GB
    assert after.level == "measured"
    assert "3 runs on this GPU: mean error 16.7%" in after.basis


def test_what_does_not_fit_already_by_its_weights_is_said(model: ModelFacts) -> None:
    full = reading(gpu(0, 100_000, total_bytes=24 * GB))
    plan = make_plan(spec(), model, full, HOST)
    assert plan.verdict == "does_not_fit"
    assert "100 kB are free" in plan.verdict_reason
    starved = make_plan(spec(), model, NONE, replace(HOST, memory_available_bytes=5))
    assert starved.verdict == "does_not_fit"
    silent = make_plan(spec(), model, reading(gpu(0, None)), HOST)
    assert silent.verdict == "unknown"


def test_quantizing_takes_less_than_full_fine_tuning(model: ModelFacts) -> None:
    def known(**values: Any) -> int:
        plan = make_plan(spec(**values), model, ONE_GPU, HOST)
        assert plan.memory is not None
        return plan.memory.known_bytes

    four, sixteen = known(), known(load_in_4bit=False)
    full = known(load_in_4bit=False, use_peft=False)
    assert four < sixteen < full
    assert known(lora_r=64) > four


def test_without_a_model_the_device_is_planned_all_the_same() -> None:
    plan = make_plan(spec(), None, ONE_GPU, HOST)
    assert (plan.memory, plan.verdict, plan.verdict_reason) == (None, "unknown", "no model is chosen yet")
    assert plan.device.name == "NVIDIA L4"


def test_a_device_that_is_not_there_is_a_problem_of_its_option(model: ModelFacts) -> None:
    plan = make_plan(spec(sftui={"device": "3"}), model, ONE_GPU, HOST)
    ((field, message),) = problems(plan)
    assert field == "sftui.device"
    assert "0 (NVIDIA L4)" in message


@pytest.mark.parametrize(
    ("row", "values", "field", "words"),
    [
        ({"text": "a"}, {"assistant_only_loss": True}, "assistant_only_loss", "needs `messages`"),
        ({"text": "a"}, {"completion_only_loss": True}, "completion_only_loss", "needs `prompt` and `completion`"),
        (
            {"text": "a"},
            {"sftui": {"sample_rows": 1, "held_out_file": "h"}},
            "sftui.sample_rows",
            "the rows are plain text",
        ),
        ({"text": 1}, {}, "datasets", "1 row is wrong; the first: "),
        (None, {}, "datasets", "has no rows."),
    ],
)
def test_data_that_does_not_go_with_the_spec_is_told(
    tmp_path: Path, model: ModelFacts, row: Any, values: dict[str, Any], field: str, words: str
) -> None:
    data = read_facts([rows(tmp_path, *([row] if row else []))])
    plan = make_plan(spec(**values), model, ONE_GPU, HOST, data)
    assert [name for name, _ in problems(plan)] == [field]
    assert words in problems(plan)[0][1]


TURN = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def planned(folder: Path, model: ModelFacts | None, *given: Any, **values: Any) -> list[Problem]:
    asked = spec(datasets=[str(rows(folder, *given))], **values)
    return list(make_plan(asked, model, ONE_GPU, HOST, check(training_request(asked))).problems)


def test_bad_rows_stop_a_run_or_are_left_out_as_the_spec_says(tmp_path: Path, model: ModelFacts) -> None:
    (stopped,) = planned(tmp_path, model, TURN, 5, 6)
    assert (stopped.field, stopped.level) == ("datasets", "error")
    assert stopped.message.startswith("2 rows are wrong; the first: ")
    assert "sftui.bad_rows: skip" in stopped.fix
    (skipped,) = planned(tmp_path, model, TURN, 5, 6, sftui={"bad_rows": "skip"})
    assert (skipped.field, skipped.level) == ("datasets", "warning")
    assert "2 bad rows are left out of 3; the first: " in skipped.message
    assert "problems.jsonl" in skipped.fix
    (none_left,) = planned(tmp_path, model, 5, sftui={"bad_rows": "skip"})
    assert none_left.level == "error"


def test_columns_that_say_nothing_are_named(tmp_path: Path, model: ModelFacts) -> None:
    (problem,) = planned(tmp_path, model, {"frage": "a", "antwort": "b"})
    assert (problem.field, problem.message) == ("datasets", "has columns that say nothing: `frage`, `antwort`.")
    assert "sftui.columns" in problem.fix
    columns = {"user": "frage", "assistant": "antwort"}
    assert planned(tmp_path, model, {"frage": "a", "antwort": "b"}, sftui={"columns": columns}) == []


def test_columns_that_the_rows_do_not_have_are_told(tmp_path: Path, model: ModelFacts) -> None:
    columns = {"user": "frage", "assistant": "antwort"}
    (problem,) = planned(tmp_path, model, TURN, sftui={"columns": columns})
    assert problem.field == "sftui.columns"
    assert problem.message == "names `frage`, `antwort`, and the rows have `messages`."


def test_rows_with_images_are_refused_before_the_run(tmp_path: Path, model: ModelFacts) -> None:
    picture = {**TURN, "images": ["a.png"]}
    (problem,) = planned(tmp_path, model, TURN, picture)
    assert (problem.level, problem.message) == ("error", "1 row shows images, and sftui trains on text only.")
    (problem,) = planned(tmp_path, model, TURN, picture, sftui={"bad_rows": "skip"})
    assert (problem.level, problem.fix) == ("warning", "They are left out.")
    (problem,) = planned(tmp_path, model, picture, sftui={"bad_rows": "skip"})
    assert problem.level == "error"


def test_rows_that_cannot_be_tokenized_stop_a_run_or_are_left_out() -> None:
    counts = TokenCounts(3)
    refused = [[1, "template_refuses", "Two user turns.", "Mend it.", "/a/rows.jsonl", 7]]
    counts.add({"start": 0, "stop": 3, "lengths": [10, 0, 500], "trained": [5, 0, 5], "first": [8, 0, 480],
                "last": [9, 0, 484], "refused": refused})  # fmt: skip
    asked = spec(max_length=100)
    found = statistics(counts, Batching.of(asked))
    (problem,) = token_problems(asked, found)
    assert (problem.field, problem.level) == ("datasets", "error")
    assert problem.message == (
        "1 row cannot be tokenized; the first: /a/rows.jsonl:7: Two user turns. "
        "1 row has nothing to learn from within 100 tokens."
    )
    assert problem.fix == "Mend or remove them, or raise max_length. Or leave them out: sftui.bad_rows: skip."
    (problem,) = token_problems(spec(max_length=100, sftui={"bad_rows": "skip"}), found)
    assert problem.level == "warning"
    none_left = spec(max_length=8, sftui={"bad_rows": "skip"})
    (problem,) = token_problems(none_left, statistics(counts, Batching.of(none_left)))
    assert (problem.level, problem.fix) == ("error", "Mend or remove them, or raise max_length.")


def test_sources_in_different_forms_do_not_mix(tmp_path: Path, model: ModelFacts) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}\n')
    plan = make_plan(spec(), model, ONE_GPU, HOST, read_facts([rows(tmp_path, TURN), text]))
    assert problems(plan) == [("datasets[1]", "is in text form, and the rows before are in messages form.")]


def test_one_row_cannot_be_split(tmp_path: Path, model: ModelFacts) -> None:
    (problem,) = planned(tmp_path, model, TURN, test_split_size=0.5)
    assert problem.field == "test_split_size"


def test_packing_that_mixes_rows_is_told(tmp_path: Path, model: ModelFacts) -> None:
    (problem,) = planned(tmp_path, model, TURN, packing=True, packing_strategy="wrapped")
    assert (problem.field, problem.level) == ("packing_strategy", "error")
    # On one device with one row in a batch, nothing is to be said of the ordinary way.
    assert planned(tmp_path, model, TURN, packing=True, per_device_train_batch_size=1) == []


def test_turns_need_a_chat_template(tmp_path: Path, model: ModelFacts) -> None:
    base = replace(model, architecture=replace(model.architecture, chat_template=False))
    alpaca = {"instruction": "a", "output": "b"}
    for row in (TURN, alpaca):
        (problem,) = planned(tmp_path, base, row)
        assert (problem.field, problem.level) == ("chat_template_path", "error")
        assert planned(tmp_path, base, row, chat_template_path="chatml") == []
        assert planned(tmp_path, model, row) == []
    assert planned(tmp_path, base, {"text": "a"}) == []
    # Alpaca's turns are those of a user and an assistant.
    assert planned(tmp_path, model, alpaca, assistant_only_loss=True) == []


def test_a_model_that_does_not_go_with_the_spec_is_told(model: ModelFacts) -> None:
    stored = replace(model.architecture, stored_quantization="bitsandbytes 4-bit nf4", chat_template=False)
    quantized = replace(model, architecture=stored)
    plan = make_plan(spec(assistant_only_loss=True), quantized, ONE_GPU, HOST)
    assert [field for field, _ in problems(plan)] == ["load_in_4bit", "assistant_only_loss"]
    assert plan.memory is not None
    assert "as stored in bitsandbytes 4-bit nf4" in plan.memory.parts[0].basis
    whole = make_plan(spec(use_peft=False, load_in_4bit=False), quantized, ONE_GPU, HOST)
    assert [field for field, _ in problems(whole)] == ["use_peft"]
    assert (whole.memory, whole.verdict) == (None, "unknown")
    warned = replace(model, architecture=replace(model.architecture, problems=("The tokenizer is missing.",)))
    (problem,) = make_plan(spec(), warned, ONE_GPU, HOST).problems
    assert (problem.field, problem.level, problem.message) == (
        "model_name_or_path",
        "warning",
        "The tokenizer is missing.",
    )


def test_here_the_starter_has_no_problem() -> None:
    plan = plan_here(build_spec(PRESETS["starter"].values))
    assert plan.problems == ()
    assert plan.memory is not None
    assert plan.device.kind == "cpu"


def test_here_files_that_are_missing_are_problems_of_their_options(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.jsonl")
    plan = plan_here(spec(model_name_or_path="no/model", datasets=[missing], sftui={"held_out_file": missing}))
    assert [field for field, _ in problems(plan)] == ["model_name_or_path", "datasets", "sftui.held_out_file"]
    assert all(problem.fix for problem in plan.problems)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"text": "a"}], "is in text form, and the training rows are in messages form."),
        ([{"messages": []}], "1 row is wrong"),
        ([5, 6], "2 rows are wrong"),
        ([], "has no rows."),
    ],
)
def test_here_held_out_rows_are_looked_at_before_the_run(tmp_path: Path, given: list[Any], words: str) -> None:
    plan = plan_here(spec(sftui={"held_out_file": str(rows(tmp_path, *given))}))
    ((field, message),) = problems(plan)
    assert field == "sftui.held_out_file"
    assert words in message


@pytest.mark.parametrize("known", [True, False])
def test_its_json_has_one_shape(model: ModelFacts, known: bool) -> None:
    plan = make_plan(spec(sftui={"device": "3"}), model if known else None, GpuReading((), None, None), HOST)
    told = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert set(told) == {"memory", "device", "verdict", "verdict_reason", "choices", "problems"}
    assert set(told["memory"]) == {"total_bytes", "total_is_complete", "parts", "basis", "level", "correction_bytes"}
    assert list(told["memory"]["parts"]) == PARTS
    assert set(told["device"]) == {"name", "total_bytes", "free_bytes"}
    assert told["verdict"] in ("fits", "tight", "does_not_fit", "unknown")
    assert all(set(choice) == {"value", "reason"} for choice in told["choices"].values())
    assert [set(problem) for problem in told["problems"]] == [{"field", "level", "message", "fix"}]
    if known:
        counted = [size for size in told["memory"]["parts"].values() if size is not None]
        assert told["memory"]["total_bytes"] == sum(counted) > 0
    else:
        assert told["memory"]["total_bytes"] is None
        assert set(told["memory"]["parts"].values()) == {None}


def test_a_person_reads_all_of_it_in_harmless_lines(model: ModelFacts) -> None:
    hostile = reading(gpu(0, 20 * GB, total_bytes=24 * GB, name="L4\x1b[2J"))
    text = describe_plan(make_plan(spec(), model, hostile, HOST))
    assert "\x1b" not in text
    assert "device   L4␛[2J: 20.0 GB free of 24.0 GB" in text
    assert "verdict  fits: " in text
    assert "chosen   dtype = bfloat16 (compute capability 8.9)" in text
    assert all(part.replace("_", " ") in text for part in PARTS)
    assert "error  sftui.device:" in describe_plan(make_plan(spec(sftui={"device": "9"}), None, NONE, HOST))


def with_names(model: ModelFacts, **values: Any) -> list[tuple[str, str, str, str]]:
    plan = make_plan(spec(**values), model, ONE_GPU, HOST)
    return [(problem.field, problem.level, problem.message, problem.fix) for problem in plan.problems]


def test_a_missing_tokenizer_is_told_wherever_a_plan_is_made(tmp_path: Path) -> None:
    shutil.copytree(starter.MODEL, tmp_path / "model")
    for file in (tmp_path / "model").glob("token*"):
        file.unlink()
    ((field, message),) = problems(make_plan(spec(), read_model(str(tmp_path / "model")), ONE_GPU, HOST))
    assert field == "model_name_or_path"
    assert "tokenizer is missing" in message


@pytest.mark.parametrize(
    ("values", "field", "level", "words", "fix"),
    [
        (
            {"sftui": {"skip_modules": ["dwn_proj"]}},
            "sftui.skip_modules",
            "warning",
            "“dwn_proj”, and no module fits it",
            "Did you mean down_proj",
        ),
        ({"sftui": {"skip_modules": ["(proj"]}}, "sftui.skip_modules", "error", "no regular expression", "down_proj"),
        (
            {"lora_modules_to_save": ["embeding"]},
            "lora_modules_to_save",
            "warning",
            "“embeding”, and the model has no such module",
            "embed_tokens",
        ),
        (
            {"lora_modules_to_save": ["down_proj"]},
            "lora_modules_to_save",
            "error",
            "names down_proj, whose weights are quantized",
            "sftui.skip_modules",
        ),
        (
            {"sftui": {"start_from_adapter": "/nowhere"}},
            "sftui.start_from_adapter",
            "error",
            "has no adapter_config.json",
            "Name the folder",
        ),
    ],
)
def test_names_that_do_not_fit_the_model_are_told(
    model: ModelFacts, values: dict[str, Any], field: str, level: str, words: str, fix: str
) -> None:
    (told,) = with_names(model, **values)
    assert told[:2] == (field, level)
    assert words in told[2]
    assert fix in told[3]


def test_names_that_fit_are_not_told(model: ModelFacts) -> None:
    fitting: dict[str, Any] = {
        "lora_modules_to_save": ["down_proj", "lm_head"],
        "sftui": {"skip_modules": [r"model\.layers\.\d+\.mlp\.down_proj", "lm_head", "norm"]},
    }
    assert with_names(model, **fitting) == []
    fitting["sftui"] = {"skip_modules": ["down_proj"]}
    assert with_names(model, **fitting) == []
    assert with_names(model, load_in_4bit=False, sftui={"skip_modules": ["nothing"]}) == []


def write_adapter(folder: Path, shapes: dict[str, tuple[int, ...]], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **config}))
    begin, header = 0, {}
    for name, shape in shapes.items():
        end = begin + 4 * math.prod(shape)
        header[f"base_model.model.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    raw = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(begin))
    return folder


def test_an_adapter_to_start_from_is_planned_as_its_file_is_now(model: ModelFacts, tmp_path: Path) -> None:
    layer = "model.layers.0.mlp.up_proj"
    shapes: dict[str, tuple[int, ...]] = {f"{layer}.lora_A.weight": (2, 192), f"{layer}.lora_B.weight": (512, 2)}

    def trained() -> int | None:
        plan = make_plan(spec(sftui={"start_from_adapter": str(tmp_path / "one")}), model, ONE_GPU, HOST)
        assert plan.memory is not None
        return plan.memory.trainable_parameters

    write_adapter(tmp_path / "one", shapes)
    assert trained() == 2 * 192 + 512 * 2
    # Rewritten in place, as a run that goes on does; its time of change differs.
    config = tmp_path / "one" / "adapter_config.json"
    write_adapter(tmp_path / "one", dict(list(shapes.items())[:1]))
    os.utime(config, ns=(1, 1))
    assert trained() == 2 * 192
    (tmp_path / "one" / "adapter_model.safetensors").write_bytes(b"torn")
    os.utime(config, ns=(2, 2))
    plan = make_plan(spec(sftui={"start_from_adapter": str(tmp_path / "one")}), model, ONE_GPU, HOST)
    assert [field for field, _ in problems(plan)] == ["sftui.start_from_adapter"]


@pytest.mark.parametrize(
    ("layer", "width", "words"),
    [
        ("model.layers.0.mlp.up_proj", 96, "features here, and 96 there"),
        ("layers.9.q_proj", 192, "there is no layers.9"),
    ],
)
def test_an_adapter_of_another_base_is_told_once_the_modules_are_known(
    model: ModelFacts, tmp_path: Path, layer: str, width: int, words: str
) -> None:
    write_adapter(tmp_path, {f"{layer}.lora_A.weight": (2, width)}, base_model_name_or_path="org/other")
    known = replace(model, inventory=inventory_of_files(model))
    plan = make_plan(spec(sftui={"start_from_adapter": str(tmp_path)}), known, ONE_GPU, HOST)
    ((field, message),) = problems(plan)
    assert field == "sftui.start_from_adapter"
    assert "made for org/other" in message
    assert words in message


def inventory_of_files(model: ModelFacts) -> Inventory:
    parameters = tuple(
        InventoryParameter(
            tensor.name, tensor.shape, None, (), "Linear", None, True, (tensor.shape[-1], tensor.shape[0]), "linear",
            "text",
        )
        for tensor in model.tensors
        if "_proj" in tensor.name
    )  # fmt: skip
    return Inventory("llama", "AutoModelForCausalLM", {}, parameters)
