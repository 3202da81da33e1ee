"""The license of a model, from the head of its README.md, which anybody may have written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models.architecture import detect
from core.models.model_card import read_license


def card(folder: Path, text: str | bytes) -> Path:
    content = text.encode() if isinstance(text, str) else text
    (folder / "README.md").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ("---\nlanguage: en\nlicense: mit\ntags:\n- a\n---", "mit"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n- apache-2.0\ntags:\n- x\n---\n", "mit, apache-2.0"),
        ("---\nlicense:\n  - mit\n---\n", "mit"),
        ('---\nlicense: "gemma"\n---\n', "gemma"),
        ("---\nlicense: other\nlicense_name: llama3.1\nlicense_link: LICENSE\n---\n", "llama3.1"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense_name: qwen\n---\n", "qwen"),
        ("---\nlicense_link: https://a.b\n---\n", None),
        ("---\nlicense:\n---\n", None),
        ("---\nlicense: 3\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
        ("---\nbase:\n  license: mit\n---\n", None),
        ("# A model\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_license_is_read_from_the_front_matter(text: str, expected: str | None, tmp_path: Path) -> None:
    assert read_license(card(tmp_path, text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "---\nlicense: !!python/object/apply:os.system ['true']\n---\n",
        "---\nlicense: [" + "[" * 5000 + "\n---\n",
        "---\nlicense: " + "[" * 1900 + "\n---\n",
        "---\na: &a [x, x]\nlicense: *a\n---\n",
        "---\nlicense: &a [mit, *a]\n---\n",
        "---\nlicense: 'mit\n---\n",
        "---\nlicense: 2024-13-45\n---\n",
        b"---\nlicense: \xff\x00\n---\n",
    ],
)
def test_a_hostile_card_has_no_license_and_does_no_harm(text: str | bytes, tmp_path: Path) -> None:
    found = read_license(card(tmp_path, text))
    assert found is None or "\ufffd" in found or found == "2024-13-45"


def test_thousands_of_results_in_a_card_are_not_parsed(tmp_path: Path) -> None:
    results = "".join(f"- task: {{name: t{number}, type: *broken\n" for number in range(20_000))
    assert read_license(card(tmp_path, f"---\nmodel-index:\n{results}license: mit\n---\n")) == "mit"


def test_a_card_that_is_a_folder_or_absent_is_no_card(tmp_path: Path) -> None:
    assert read_license(tmp_path) is None
    (tmp_path / "README.md").mkdir()
    assert read_license(tmp_path) is None


def test_a_license_is_part_of_what_is_known_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert detect(tmp_path).license is None
    card(tmp_path, "---\nlicense: cc-by-4.0\n---\n")
    assert detect(tmp_path).license == "cc-by-4.0"


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_after_license_is_words_or_nothing(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        found = read_license(card(Path(name), f"---\nlicense: {text}\n---\n"))
    assert found is None or (found.strip() == found and 0 < len(found) <= 200)
