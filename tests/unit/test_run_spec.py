"""A spec is checked whole: each wrong value with its option, what is allowed and what was given."""

from typing import Any

import pytest
from pydantic import ValidationError

from core.spec.build import build_spec, check_values, parse_value, value_of, with_value
from core.spec.presets import PRESETS
from core.spec.problems import SpecError
from core.spec.run_spec import RunSpec, options
from core.spec.trl_arguments import OWNED, argument_names

BASE: dict[str, Any] = {"model_name_or_path": "some/model", "datasets": ["rows.jsonl"]}


def told(**values: Any) -> list[str]:
    return [str(problem) for problem in check_values({**BASE, **values}).problems]


def test_a_model_and_data_are_enough() -> None:
    checked = check_values(BASE)
    assert checked.problems == ()
    assert checked.spec == build_spec(BASE)
    assert checked.spec is not None
    assert [source.path for source in checked.spec.datasets] == ["rows.jsonl"]
    assert (checked.spec.method, checked.spec.quantization) == ("full", "none")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lora_r", 0, "must be a whole number, at least 1 and at most 4096; it is 0."),
        ("lora_r", 16.5, "must be a whole number, at least 1 and at most 4096; it is 16.5."),
        ("lora_r", "many", "must be a whole number, at least 1 and at most 4096; it is 'many'."),
        ("lora_r", None, "must be a whole number, at least 1 and at most 4096; it is None."),
        ("lora_r", True, "must be a whole number, at least 1 and at most 4096; it is True."),
        ("learning_rate", 0, "must be a number, above 0 and at most 10; it is 0."),
        ("learning_rate", float("nan"), "must be a number, above 0 and at most 10; it is nan."),
        ("num_train_epochs", float("inf"), "must be a number, above 0; it is inf."),
        ("lora_dropout", 1, "must be a number, at least 0 and below 1; it is 1."),
        ("seed", 2**32, "must be a whole number, at least 0 and below 4294967296; it is 4294967296."),
        ("max_steps", -2, "must be a whole number, at least -1; it is -2."),
        ("max_length", 4, "must be a whole number, at least 8 or nothing; it is 4."),
        (
            "attn_implementation",
            "spda",
            "must be one of eager, sdpa, flash_attention_2, flash_attention_3, flex_attention"
            " or a kernel of the hub by its name (kernels-community/…) or nothing; it is 'spda'.",
        ),
        ("packing", "perhaps", "must be true or false; it is 'perhaps'."),
        ("dtype", "fp16", "must be one of auto, float32, bfloat16, float16; it is 'fp16'."),
        ("bnb_4bit_quant_type", "nf5", "must be one of nf4, fp4; it is 'nf5'."),
        ("lora_target_modules", "q_proj", "must be one of all-linear or a list; it is 'q_proj'."),
        ("lora_target_modules", {}, "must be one of all-linear or a list; it is {}."),
        ("model_revision", 20240101, "must be text; it is 20240101. Put it in quotes."),
        ("datasets", 5, "must be a list; it is 5."),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(name: str, value: Any, words: str) -> None:
    checked = check_values({**BASE, name: value})
    assert checked.spec is None
    assert [str(problem) for problem in checked.problems] == [f"{name}: {words}"]


def test_what_must_be_given_and_is_not_is_explained() -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({})
    model, data = caught.value.problems
    assert (model.field, model.message) == ("model_name_or_path", "is missing.")
    assert "Hugging Face id" in model.fix
    assert (data.field, data.message) == ("datasets", "is missing.")
    assert "JSONL" in data.fix
    assert [p.message for p in check_values({"model_name_or_path": "", "datasets": []}).problems] == ["is empty."] * 2


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_options() -> None:
    with pytest.raises(SpecError) as caught:
        build_spec(
            {"seed": -1, "lerning_rate": 1, "datasets": [{"pth": "x"}], "lora_r": 0, "sftui": {"sample_rows": -1}}
        )
    fields = [problem.field for problem in caught.value.problems]
    assert set(fields) == {
        "lerning_rate", "model_name_or_path", "datasets[0].path", "datasets[0].pth", "lora_r", "seed",
        "sftui.sample_rows",
    }  # fmt: skip
    assert fields[-3:] == ["lora_r", "seed", "sftui.sample_rows"]
    assert caught.value.title == "The spec has 7 problems"
    assert all(f"{field}:" in caught.value.message for field in fields)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("lerning_rate", "learning_rate"),
        ("lora_rank", "lora_r"),
        ("grad_accumulation_steps", "gradient_accumulation_steps"),
        ("adam_beta_1", "adam_beta1"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(wrong: str, right: str) -> None:
    (problem,) = check_values({**BASE, wrong: 1}).problems
    assert (problem.field, problem.level) == (wrong, "error")
    assert problem.fix == f"Did you mean {right}?"


def test_an_unknown_name_with_nothing_near_says_where_to_look() -> None:
    (problem,) = check_values({**BASE, "qqqqqq": 1}).problems
    assert "SFTConfig" in problem.fix
    (problem,) = check_values({**BASE, "sftui": {"nme": "x"}}).problems
    assert (problem.field, problem.fix) == ("sftui.nme", "Did you mean sftui.name?")


def test_an_argument_of_the_installed_sftconfig_is_passed_on() -> None:
    spec = build_spec({**BASE, "adam_beta1": 0.8, "neftune_noise_alpha": 5})
    assert spec.extra_arguments == {"adam_beta1": 0.8, "neftune_noise_alpha": 5}
    assert {"adam_beta1", "max_length", "activation_checkpointing", "assistant_only_loss"} <= argument_names()


def test_what_sftui_owns_is_named_and_left_out() -> None:
    checked = check_values({**BASE, **dict.fromkeys(OWNED, "x")})
    assert {problem.field for problem in checked.problems} == set(OWNED)
    assert {problem.level for problem in checked.problems} == {"warning"}
    assert checked.spec == build_spec(BASE)


def test_other_names_of_the_field_are_understood() -> None:
    spec = build_spec({"model_name": "m", "dataset_name": "rows.jsonl", "max_seq_length": 64, "torch_dtype": "float32",
                       "gradient_checkpointing": False, "lora_target_modules": ["all-linear"]})  # fmt: skip
    assert (spec.model_name_or_path, spec.max_length, spec.dtype) == ("m", 64, "float32")
    assert spec.activation_checkpointing is False
    assert spec.lora_target_modules == "all-linear"
    assert [source.path for source in spec.datasets] == ["rows.jsonl"]


@pytest.mark.parametrize("name", ["kernels-community/flash-attn2", "a/b@v1.0:attention", "sdpa", None])
def test_attention_may_be_a_kernel_of_the_hub(name: str | None) -> None:
    assert build_spec({**BASE, "attn_implementation": name}).attn_implementation == name


def test_what_trl_sft_writes_by_default_is_let_through_and_the_rest_of_it_refused() -> None:
    assert told(dataset_train_split="train", dataset_config=None, lora_task_type="CAUSAL_LM", streaming=False) == []
    assert told(dataset_train_split="test") == [
        "dataset_train_split: is not read by sftui yet; it is 'test'. Remove it."
    ]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"load_in_4bit": True, "load_in_8bit": True, "use_peft": True}, "load_in_8bit"),
        ({"load_in_4bit": True}, "use_peft"),
        ({"assistant_only_loss": True, "completion_only_loss": True}, "completion_only_loss"),
        ({"packing": True, "max_length": None}, "max_length"),
        ({"eval_strategy": "epoch"}, "eval_strategy"),
        ({"eval_strategy": "steps", "test_split_size": 0.1}, "eval_steps"),
        ({"test_split_size": 0.1, "sftui": {"held_out_file": "h.jsonl"}}, "test_split_size"),
        ({"sftui": {"sample_rows": 2}}, "sftui.sample_rows"),
        ({"use_peft": True, "lora_target_modules": []}, "lora_target_modules"),
        ({"use_peft": True, "lora_target_modules": ["q_proj", "lm_head"]}, "lora_target_modules"),
        ({"use_peft": True, "use_dora": True, "sftui": {"init_lora_weights": "eva"}}, "use_dora"),
        (
            {"use_peft": True, "load_in_4bit": True, "sftui": {"init_lora_weights": "pissa"}},
            "sftui.init_lora_weights",
        ),
        (
            {"use_peft": True, "load_in_8bit": True, "sftui": {"init_lora_weights": "olora"}},
            "sftui.init_lora_weights",
        ),
        ({"use_peft": True, "sftui": {"init_lora_weights": "loftq"}}, "sftui.init_lora_weights"),
        ({"use_peft": True, "use_dora": True, "sftui": {"init_lora_weights": "pissa"}}, "use_dora"),
        ({"use_peft": True, "use_dora": True, "lora_target_parameters": ["down_proj"]}, "lora_target_parameters"),
        (
            {"use_peft": True, "lora_target_parameters": ["x"], "sftui": {"init_lora_weights": "pissa"}},
            "lora_target_parameters",
        ),
        (
            {"use_peft": True, "sftui": {"start_from_adapter": "a", "init_lora_weights": "gaussian"}},
            "sftui.init_lora_weights",
        ),
        ({"dtype": "float16"}, "dtype"),
        ({"datasets": [{"path": "a.jsonl", "fraction": 0.5}, "b.jsonl"]}, "datasets[1].fraction"),
        ({"datasets": [{"path": "json", "data_files": {"train": "a"}, "split": "test"}]}, "datasets[0].split"),
        ({"sftui": {"columns": {"question": "q"}}}, "sftui.columns"),
        ({"sftui": {"columns": {"user": "q"}}}, "sftui.columns"),
    ],
)
def test_a_contradiction_stands_beside_the_option_to_change(values: dict[str, Any], field: str) -> None:
    checked = check_values({**BASE, **values})
    assert [(problem.field, problem.level) for problem in checked.problems] == [(field, "error")]
    assert checked.problems[0].fix
    with pytest.raises(SpecError):
        build_spec({**BASE, **values})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (5, "sftui: must be a section of `name: value` lines; it is 5."),
        ({"sample_rows": True}, "sftui.sample_rows: must be a whole number, at least 0 and at most 1000; it is True."),
        ({"sample_prompts": "one"}, "sftui.sample_prompts: must be a list; it is 'one'."),
    ],
)
def test_the_section_sftui_is_checked_too(section: Any, words: str) -> None:
    assert told(sftui=section) == [words]


def test_an_empty_section_and_a_device_by_its_number_are_fine() -> None:
    assert build_spec({**BASE, "sftui": None}) == build_spec(BASE)
    assert build_spec({**BASE, "sftui": {"device": 1}}).sftui.device == "1"


@pytest.mark.parametrize("given", [5, "x", ["x"]])
def test_arguments_to_pass_on_that_are_no_lines_are_refused(given: Any) -> None:
    assert told(extra_arguments=given) == ["extra_arguments: must be `name: value` lines."]


def test_a_wrong_value_is_shown_short_however_much_it_stands_for() -> None:
    bomb: list[Any] = ["ha"]
    for _ in range(60):
        bomb = [bomb, bomb]
    (problem,) = check_values({**BASE, "lora_r": bomb}).problems
    assert len(problem.message) < 200
    (problem,) = check_values({**BASE, "lora_r": "x" * 10_000}).problems
    assert len(problem.message) < 200


def test_a_spec_is_frozen_and_complete() -> None:
    spec = build_spec(BASE)
    with pytest.raises(ValidationError):
        spec.seed = 1
    assert set(RunSpec.model_fields) - {"sftui", "extra_arguments"} <= set(options())


@pytest.mark.parametrize(
    ("peft", "four", "eight", "method", "quantization"),
    [
        (False, False, False, "full", "none"),
        (True, False, False, "lora", "none"),
        (True, True, False, "qlora", "fp4"),
        (True, False, True, "qlora", "int8"),
    ],
)
def test_the_method_has_the_name_that_the_field_gives_it(
    peft: bool, four: bool, eight: bool, method: str, quantization: str
) -> None:
    spec = build_spec(
        {**BASE, "use_peft": peft, "load_in_4bit": four, "load_in_8bit": eight, "bnb_4bit_quant_type": "fp4"}
    )
    assert (spec.method, spec.quantization) == (method, quantization)


def test_every_option_says_what_it_is() -> None:
    for name, option in options().items():
        assert option.name == name
        assert option.title, name
        assert option.help.endswith((".", "…", "`text`")), name
        assert option.allowed(), name


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_needs_no_more_than_model_and_data(preset: str) -> None:
    spec = build_spec({**BASE, **PRESETS[preset].values})
    assert spec.method == {"starter": "qlora"}.get(preset, preset)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lora_r", "32", 32),
        ("lora_r", " 1,024 ", 1024),
        ("lora_r", "", ""),
        ("lora_r", "many", "many"),
        ("learning_rate", "2e-4", 2e-4),
        ("learning_rate", "0,5", "0,5"),
        ("learning_rate", "0,002", "0,002"),
        ("max_length", "", None),
        ("max_length", "none", None),
        ("packing", "On", True),
        ("packing", "no", False),
        ("completion_only_loss", "", None),
        ("lora_target_modules", "all-linear", "all-linear"),
        ("lora_target_modules", "q_proj, v_proj", ["q_proj", "v_proj"]),
        ("lora_target_modules", "q_proj", ["q_proj"]),
        ("sftui.sample_prompts", '["Hello, world", "Bye"]', ["Hello, world", "Bye"]),
        ("sftui.device", "0", "0"),
        ("sftui.skip_modules", "lm_head, gate", ["lm_head", "gate"]),
        ("sftui.start_from_adapter", "", None),
        ("lora_modules_to_save", "", None),
        ("lora_modules_to_save", "embed_tokens", ["embed_tokens"]),
        ("attn_implementation", "kernels-community/flash-attn2", "kernels-community/flash-attn2"),
        ("datasets", "a.jsonl,b.jsonl", ["a.jsonl", "b.jsonl"]),
        ("adam_epsilon", "1e-8", 1e-8),
        ("neftune_noise_alpha", "[1", "[1"),
    ],
)
def test_typed_text_means_what_a_person_means(name: str, text: str, value: Any) -> None:
    parsed = parse_value(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_values_are_set_on_a_copy_also_under_sftui() -> None:
    before = {"lora_r": 8, "sftui": {"name": "a"}}
    after = with_value(with_value(before, "lora_r", 16), "sftui.notes", "n")
    assert after == {"lora_r": 16, "sftui": {"name": "a", "notes": "n"}}
    assert before == {"lora_r": 8, "sftui": {"name": "a"}}
    assert with_value({"sftui": None}, "sftui.name", "x") == {"sftui": {"name": "x"}}
    assert (value_of(after, "sftui.notes"), value_of(after, "lora_alpha")) == ("n", 32)
    assert value_of(after, "model_name_or_path") is None


@pytest.mark.parametrize(
    ("command", "words"), [('mail "me', "a quote is not closed in"), ("mail \\", "nothing follows")]
)
def test_a_command_with_an_open_quote_is_said_to_have_one(command: str, words: str) -> None:
    values = {"model_name_or_path": "m", "datasets": ["d.jsonl"], "sftui": {"on_finish": command}}
    (problem,) = check_values(values).problems
    assert problem.field == "sftui.on_finish"
    assert words in problem.message and "list of arguments" in problem.fix


def test_a_reporter_that_is_not_installed_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "core.spec.contradictions.importlib.util.find_spec", lambda name: None if name == "wandb" else object()
    )
    values = {"model_name_or_path": "m", "datasets": [{"path": "rows.jsonl"}]}
    assert build_spec({**values, "sftui": {"report_to": ["tensorboard"]}}).sftui.report_to == ["tensorboard"]
    with pytest.raises(SpecError, match="names wandb, which is not installed") as refused:
        build_spec({**values, "sftui": {"report_to": ["wandb"]}})
    assert "pip install wandb" in str(refused.value)
