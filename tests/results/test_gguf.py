"""GGUF through a converter: found, run without a shell, its failures in words, and its file read again."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import SftuiError
from core.results.gguf import SCRIPT, find_converter, modelfile
from core.results.gguf_file import read_gguf
from core.runs.folder import RunFolder
from tests.results.test_export import export

# Writes the head of a GGUF file, with one tensor announced, as llama.cpp's own does for any model.
CONVERTER = """
import json, pathlib, struct, sys
model, target = pathlib.Path(sys.argv[1]), sys.argv[sys.argv.index("--outfile") + 1]
assert (model / "model.safetensors").exists() and sys.argv[sys.argv.index("--outtype") + 1] == "bf16"
def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
template = (model / "chat_template.jinja").read_text()
values = text("general.architecture") + struct.pack("<I", 8) + text("llama")
values += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
values += text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + struct.pack("<ff", 0, 1)
values += text("tokenizer.ggml.eos_token_id") + struct.pack("<II", 4, 2)
values += text("tokenizer.chat_template") + struct.pack("<I", 8) + text(template + CHANGE)
pathlib.Path(target).write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 5) + values)
"""


def llama_cpp(folder: Path, script: str) -> str:
    folder.mkdir()
    (folder / SCRIPT).write_text(script)
    return str(folder)


def test_a_gguf_file_comes_with_a_modelfile_and_the_template_that_was_trained_with(
    qlora: RunFolder, tmp_path: Path
) -> None:
    sources = llama_cpp(tmp_path / "llama.cpp", CONVERTER.replace("CHANGE", "''"))
    made, _ = export(qlora, "gguf", tmp_path / "tiny", llama_cpp=sources, compare=False)
    assert made.path == str(tmp_path / "tiny.gguf")
    head = read_gguf(Path(made.path))
    assert (head.architecture, head.end_token, head.tensors) == ("llama", 2, 1)
    text = (tmp_path / "tiny.Modelfile").read_text()
    assert text.startswith("FROM ./tiny.gguf\n")
    assert "TEMPLATE" in text
    assert "<|im_start|>user\n{{ .Content }}<|im_end|>" in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("tiny")) == [
        "tiny.Modelfile",
        "tiny.gguf",
    ]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (CONVERTER.replace("CHANGE", "'x'"), "another chat template"),
        ("import a_package_that_is_not_here\n", "a_package_that_is_not_here"),
        ("open(__import__('sys').argv[3], 'wb').write(b'GGUF')\n", "it is cut short"),
        ("import sys; sys.exit(0)\n", "it said nothing"),
    ],
    ids=["template", "import", "short", "silent"],
)
def test_what_goes_wrong_with_a_converter_is_told_and_leaves_nothing(
    qlora: RunFolder, tmp_path: Path, script: str, words: str
) -> None:
    sources = llama_cpp(tmp_path / "llama.cpp", script)
    with pytest.raises(SftuiError) as raised:
        export(qlora, "gguf", tmp_path / "tiny.gguf", llama_cpp=sources, compare=False)
    assert words in str(raised.value)
    assert not (tmp_path / "tiny.gguf").exists()


def test_llama_cpp_is_looked_for_before_anything_is_merged(
    qlora: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SftuiError, match="is not here") as raised:
        export(qlora, "gguf", tmp_path / "tiny.gguf")
    assert "--llama-cpp" in raised.value.hint
    assert list(tmp_path.glob("tiny*")) == []
    folder = llama_cpp(tmp_path / "sources", "")
    monkeypatch.setenv("LLAMA_CPP", folder)
    assert find_converter(None) == Path(folder) / SCRIPT
    with pytest.raises(SftuiError, match="has no convert_hf_to_gguf"):
        find_converter(str(tmp_path))


Render = Callable[[object, bool], str]


def rendering(jinja: str) -> Render:
    from core.data.rendered_chat import ChatTemplate

    template = ChatTemplate(jinja, {"bos_token": "<s>", "eos_token": "</s>"})
    return lambda messages, answer: template.render(messages, answer=answer)  # type: ignore[arg-type]


def test_a_template_is_put_into_ollamas_language_only_where_that_gives_the_same_text() -> None:
    chatml = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text, words = modelfile("m.gguf", rendering(chatml), ["<|im_end|>"])
    assert "tried out" in words
    assert (
        'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ else }}{{ end }}{{ range .Messages'
        " }}" in text
    )
    default_system = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + chatml
    assert (
        "{{ else }}<|im_start|>system\nBe kind.<|im_end|>\n{{ end }}"
        in modelfile("m.gguf", rendering(default_system), [])[0]
    )
    shouting = chatml.replace("m.content", "m.content | upper")
    counting = chatml.replace("{{ m.role }}", "{{ loop.index }}")
    for jinja in (shouting, counting, "{{ raise_exception('no system message') }}"):
        text, words = modelfile("m.gguf", rendering(jinja), [])
        assert "TEMPLATE" not in text
        assert words.startswith("none")


def test_files_that_are_no_gguf_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    for content in (b"", b"PK\x03\x04", b"GGUF", b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 40), b"GGUF" + b"\xff" * 40):
        file.write_bytes(content)
        with pytest.raises(SftuiError, match="Not a GGUF file"):
            read_gguf(file)
