"""run.yaml: read with the line of each problem, written with a comment on each option, the same spec both ways."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from core.errors import SftuiError
from core.spec.build import build_spec, check_values
from core.spec.option import Option
from core.spec.presets import PRESETS
from core.spec.problems import SpecError
from core.spec.run_spec import RunSpec, options
from core.spec.yaml_file import check_source, read_source, read_spec, read_values, to_yaml

BASE: dict[str, Any] = {"model_name_or_path": "some/model", "datasets": [{"path": "rows.jsonl"}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def test_a_file_of_trl_sft_opens(file: Path) -> None:
    file.write_text("""\
# Model
model_name_or_path: Qwen/Qwen3-0.6B
dtype: bfloat16
attn_implementation: sdpa
# Data
dataset_name: rows.jsonl
dataset_train_split: train
max_length: 512
# Training
output_dir: out
learning_rate: 2e-4
adam_epsilon: 1e-8
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: true
logging_steps: 25
report_to: wandb
# LoRA
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules:
  - q_proj
  - v_proj
""")
    checked = check_source(file)
    assert checked.spec is not None
    assert checked.spec.model_name_or_path == "Qwen/Qwen3-0.6B"
    assert [source.path for source in checked.spec.datasets] == ["rows.jsonl"]
    assert checked.spec.learning_rate == 2e-4
    assert checked.spec.activation_checkpointing is True
    assert checked.spec.lora_target_modules == ["q_proj", "v_proj"]
    # Passed on as a number: AdamW compares it.
    assert checked.spec.extra_arguments == {"adam_epsilon": 1e-8}
    warned = {problem.field: problem.where for problem in checked.problems}
    assert warned == {"output_dir": f"{file}:10", "logging_steps": f"{file}:17", "report_to": f"{file}:18"}
    assert {problem.level for problem in checked.problems} == {"warning"}
    assert read_spec(file) == checked.spec


def test_each_problem_names_its_line(file: Path) -> None:
    file.write_text("""\
model_name_or_path: m
lora_r: 0

gradient_checkpointing: perhaps
lerning_rate: 1
datasets:
  - path: a.jsonl
    fraction: 7
sftui:
  name: x
  sample_rows: -1
""")
    with pytest.raises(SpecError) as caught:
        read_spec(file)
    assert {problem.field: problem.where for problem in caught.value.problems} == {
        "lerning_rate": f"{file}:5",
        "datasets[0].fraction": f"{file}:6",
        "lora_r": f"{file}:2",
        "activation_checkpointing": f"{file}:4",
        "sftui.sample_rows": f"{file}:11",
    }
    assert f"{file}:2: lora_r: must be" in caught.value.message


def test_what_is_missing_has_no_line(file: Path) -> None:
    file.write_text("seed: 1\n")
    with pytest.raises(SpecError) as caught:
        read_spec(file)
    assert [(p.field, p.where) for p in caught.value.problems] == [("model_name_or_path", ""), ("datasets", "")]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\n", 3, "expected ',' or ']'"),
        ("a: 1\n\nb: c: d\n", 3, "mapping values are not allowed here"),
        ("a: 1\n\tb: 2\n", 2, "found character '\\t'"),
        ("seed: 1\nseed: 2\n", 2, "seed is given a second time"),
        ("sftui:\n  name: a\n  name: b\n", 3, "name is given a second time"),
        ("a: 1\n---\nb: 1\n", 2, "another document"),
        ("a: 1\nb: *nothing\n", 2, "undefined alias"),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "could not determine a constructor for the tag"),
        ("a: 1\nb: !!python/name:os.system\n", 2, "could not determine a constructor for the tag"),
        ("a: !mine 1\n", 1, "could not determine a constructor for the tag"),
        ("[a, b]: 1\n", 1, "unhashable"),
    ],
)
def test_yaml_that_cannot_be_read_names_the_line(file: Path, text: str, line: int, words: str) -> None:
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_values(file)
    (problem,) = caught.value.problems
    assert problem.where == f"{file}:{line}"
    assert words in problem.message


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "1: 2\n", "lora_r: 1\x00\n", "[" * 5000])
def test_what_is_no_list_of_values_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_values(file)
    assert str(file) in caught.value.message


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_has_no_values(file: Path, text: str) -> None:
    file.write_text(text)
    assert read_values(file) == {}


def test_a_byte_order_mark_is_no_part_of_the_first_name(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfseed: 7\n")
    assert read_values(file) == {"seed": 7}


def test_a_file_that_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(SftuiError, match="does not exist") as caught:
        read_values(tmp_path / "nothing.yaml")
    assert "starter" in caught.value.hint
    (tmp_path / "latin.yaml").write_bytes(b"sftui:\n  notes: caf\xe9\n")
    with pytest.raises(SftuiError, match="byte 19 is not UTF-8"):
        read_values(tmp_path / "latin.yaml")
    with pytest.raises(SftuiError, match="Is a directory"):
        read_values(tmp_path)
    with pytest.raises(SftuiError, match="does not exist"):
        read_spec("~nobody-of-this-name/run.yaml")


def test_numbers_with_an_exponent_are_numbers_and_quoted_ones_are_text(file: Path) -> None:
    file.write_text("a: 1e-8\nb: 2E5\nc: -1.5e3\nd: '1e-8'\ne: 1e\n")
    assert read_values(file) == {"a": 1e-8, "b": 2e5, "c": -1500.0, "d": "1e-8", "e": "1e"}


def test_options_can_be_set_over_a_file_and_over_a_preset(file: Path) -> None:
    file.write_text("model_name_or_path: m\ndatasets: rows.jsonl\nlora_r: 8\nsftui: {name: a, notes: kept}\n")
    spec = read_spec(file, {"lora_r": 4, "sftui.name": "b"})
    assert (spec.lora_r, spec.sftui.name, spec.sftui.notes) == (4, "b", "kept")
    spec = read_spec("starter", {"max_steps": 3})
    assert (spec.max_steps, spec.sftui.name) == (3, "starter")
    assert PRESETS["starter"].values.get("max_steps") is None


def test_a_folder_with_a_presets_name_does_not_hide_it_but_a_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora").mkdir()
    (tmp_path / "full").write_text("seed: 5\n")
    assert read_source("lora")[0] == PRESETS["lora"].values
    assert read_source("full") == ({"seed": 5}, {"seed": 1})


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_comes_back_as_it_was_written(file: Path, preset: str) -> None:
    spec = build_spec({**BASE, **PRESETS[preset].values})
    file.write_text(to_yaml(spec), encoding="utf-8")
    assert read_spec(file) == spec


def test_every_option_is_written_with_its_help(file: Path) -> None:
    text = to_yaml(build_spec({**BASE, "adam_beta1": 0.8}))
    for option in options().values():
        assert f"# {option.title}: {option.help}\n" in text
    assert "\nadam_beta1: 0.8\n" in text
    assert text.index("sftui:") > text.index("seed:")


def _value(option: Option) -> SearchStrategy[Any]:
    if option.name == "datasets":
        source = st.fixed_dictionaries({"path": _TEXT.filter(bool)}, optional={"data_files": _TEXT | st.lists(_TEXT)})
        return st.lists(source, min_size=1, max_size=3)
    kinds: list[SearchStrategy[Any]] = []
    if option.choices:
        kinds.append(st.sampled_from(option.choices))
    elif bool in option.kinds:
        kinds.append(st.booleans())
    elif int in option.kinds:
        kinds.append(st.integers(int(option.minimum or 0), int(option.maximum or 10**6)))
    elif float in option.kinds:
        kinds.append(
            st.floats(
                option.minimum if option.minimum is not None else option.exclusive_minimum or 0.0,
                option.maximum if option.maximum is not None else option.exclusive_maximum or 1e6,
                exclude_min=option.exclusive_minimum is not None,
                exclude_max=option.exclusive_maximum is not None,
            )
        )
    elif str in option.kinds:
        kinds.append(_TEXT.filter(bool))
    if list in option.kinds:
        kinds.append(st.lists(_TEXT, max_size=3))
    if option.optional:
        kinds.append(st.none())
    return st.one_of(kinds)


# Also what YAML reads as something else, and what breaks its lines.
_TEXT: SearchStrategy[str] = (
    st.text(max_size=30)
    | st.text(st.characters(categories=["Cc", "Zl", "Zp"]), max_size=4)
    | st.sampled_from(["1e5", "1E-8", "yes", "null", "~", "2024-01-01", "0x1f", "0o7", "1_000", "a: b", "# no", "- x",
                       "<<", "=", "a\n\n  b\n", "\ttab", "'", '"', "!!str", "&a", "*a", "%", "@", "\ufeff", "\x85"])
)  # fmt: skip


def _is_a_command(value: str | list[str] | None) -> bool:
    if isinstance(value, str):
        try:
            shlex.split(value)
        except ValueError:
            return False
    return True


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    values: dict[str, Any] = {"sftui": {}}
    for option in options().values():
        if option.name in BASE or draw(st.booleans()):
            place = values["sftui"] if option.name.startswith("sftui.") else values
            possible = _value(option)
            if option.name == "sftui.on_finish":
                possible = possible.filter(_is_a_command)
            elif option.name == "sftui.report_to":
                # Which of them may be named depends on what is installed.
                possible = st.just([])
            place[option.name.removeprefix("sftui.")] = draw(possible)
    values["adam_epsilon"] = draw(st.floats(1e-300, 1))
    values["lr_scheduler_kwargs"] = {"text": draw(_TEXT | st.just("half \ud800")), "number": draw(st.floats(-1e9, 1e9))}
    spec = check_values(values).spec
    assert spec is not None, check_values(values).problems
    return spec


@settings(max_examples=80, deadline=None)
@given(spec=specs())
def test_any_spec_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> None:
    file = tmp_path_factory.mktemp("spec") / "run.yaml"
    file.write_text(to_yaml(spec), encoding="utf-8")
    values = read_values(file)
    again = check_values(values).spec
    assert again == spec
    assert again.extra_arguments == spec.extra_arguments
