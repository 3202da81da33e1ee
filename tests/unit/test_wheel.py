"""The wheel holds all that the checkout's packages hold, the app's styles and the starter's weights too."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "tui_app")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def in_checkout() -> set[str]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {
        str(path.relative_to(ROOT))
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def in_wheel(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_it_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert in_wheel(wheel) == in_checkout()
    assert not [name for name in wheel.namelist() if name.startswith("tests")]


def test_the_styles_the_types_and_the_starter_are_there(wheel: zipfile.ZipFile) -> None:
    names = in_wheel(wheel)
    styles = {str(path.relative_to(ROOT)) for path in (ROOT / "tui_app").rglob("*.tcss")}
    assert len(styles) > 5
    assert styles <= names
    starter = {
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "support.jsonl",
        "held_out.jsonl",
    }
    assert {f"core/starter/{name}" for name in starter} | {"core/py.typed", "tui_app/py.typed"} <= names


def test_its_files_are_those_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    for name in ("core/starter/model/model.safetensors", "tui_app/app.tcss"):
        assert wheel.read(name) == (ROOT / name).read_bytes()


def test_it_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(entry_points).decode().split("\n")[:2] == ["[console_scripts]", "sftui = tui_app.__main__:main"]
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    (metadata,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    told = wheel.read(metadata).decode()
    assert "Requires-Python: >=3.11" in told
    assert "License-Expression: Apache-2.0" in told
