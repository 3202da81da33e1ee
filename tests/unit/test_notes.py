"""What people write to a run stays with it."""

import json
from pathlib import Path

import pytest

from core.cli import main
from core.errors import SftuiError
from core.runs.folder import RunFolder
from core.runs.notes import add_note, read_notes


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run.yaml").touch()
    return RunFolder(tmp_path)


def test_notes_are_kept_in_order(folder: RunFolder) -> None:
    assert read_notes(folder) == ()
    add_note(folder, "  the second half of the rows is new \n")
    add_note(folder, "größer 😀")
    assert [note.text for note in read_notes(folder)] == ["the second half of the rows is new", "größer 😀"]
    assert oct(folder.notes_file.stat().st_mode & 0o777) == "0o600"
    with pytest.raises(SftuiError, match="empty"):
        add_note(folder, " \n")


def test_lines_that_are_no_notes_are_passed_over(folder: RunFolder) -> None:
    folder.notes_file.write_text('{"time": 1}\n[]\nnull\n{"time": 2.5, "text": "kept"}\n{"time": 3, "te')
    assert [(note.time, note.text) for note in read_notes(folder)] == [(2.5, "kept")]


def test_notes_are_written_and_read_on_the_command_line(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["note", str(folder.path), "a", "\x1b[31mred", "one"]) == 0
    assert main(["note", str(folder.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("red one")
    assert "\x1b" not in lines[0]
    assert main(["note", str(folder.path), "--json"]) == 0
    assert [note["text"] for note in json.loads(capsys.readouterr().out)] == ["a \x1b[31mred one"]


@pytest.mark.parametrize("length", ["max_steps", "max_steps=0", "max_steps=1.5", "miles=2", "num_train_epochs=nan"])
def test_a_length_that_is_none_is_refused(folder: RunFolder, length: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["set", str(folder.path), length]) == 2
    assert "is no length of a run" in capsys.readouterr().err
