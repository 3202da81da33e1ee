"""Who may import what, looked at in fresh processes."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import core
import tui_app

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")
SHOW_ONE_FRAME = """
import asyncio
from tui_app.app import SftuiApp
async def main():
    async with SftuiApp(warm=False).run_test(size=(80, 24)) as pilot:
        {then}
asyncio.run(main())
"""

SHOW_FIRST_FRAME = """
from tui_app.app import SftuiApp
class Painted(SftuiApp):
    def on_ready(self):
        self.exit()
Painted(warm=False).run(headless=True, size=(120, 40))
"""


def loaded_after(code: str, home: Path) -> set[str]:
    """The top-level packages that a fresh process has loaded after running the code."""
    code += "\nimport sys; print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    environment = {**os.environ, "XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("LOADED"), done.stdout
    return set(last.split()[1:])


def modules_of(package: object) -> list[str]:
    """All modules below a package, without importing them."""
    [folder] = package.__path__  # type: ignore[attr-defined]
    name = package.__name__  # type: ignore[attr-defined]
    root = Path(folder)
    files = sorted(path.relative_to(root.parent) for path in root.rglob("*.py") if path.name != "__init__.py")
    assert files, f"{name} has no modules"
    return [".".join(path.with_suffix("").parts) for path in files]


def test_no_module_of_the_app_reaches_a_heavy_package(tmp_path: Path) -> None:
    code = "\n".join(f"import {name}" for name in modules_of(tui_app))
    assert not loaded_after(code, tmp_path) & {*HEAVY, "numpy"}


def test_the_first_frame_pays_for_the_list_of_runs_alone(tmp_path: Path) -> None:
    imported = loaded_after("import tui_app.app, tui_app.screens.runs", tmp_path)
    assert "textual" in imported
    assert not imported & {*HEAVY, "numpy", "textual_plot", "pydantic", "yaml", "psutil", "pynvml"}
    # What reads the machine may be on its way by then, in a thread.
    assert not loaded_after(SHOW_FIRST_FRAME, tmp_path) & {*HEAVY, "numpy", "pydantic", "yaml"}


@pytest.mark.parametrize("then", ["await pilot.pause(0.5)", "await pilot.press('t'); await pilot.pause(0.5)"])
def test_showing_screens_loads_nothing_heavy(then: str, tmp_path: Path) -> None:
    assert not loaded_after(SHOW_ONE_FRAME.format(then=then), tmp_path) & {*HEAVY, "numpy"}


@pytest.mark.parametrize("name", ["cli", "runs.folder", "runs.launch", "spec.build", "memory.plan", "models.catalog"])
def test_core_never_loads_the_terminal(name: str, tmp_path: Path) -> None:
    if name not in {module.partition(".")[2] for module in modules_of(core)}:
        pytest.skip("not written")
    assert not loaded_after(f"import core.{name}", tmp_path) & {"textual", "rich", "tui_app", *HEAVY}


def test_every_folder_of_the_app_is_a_package() -> None:
    found = {info.name for info in pkgutil.walk_packages(tui_app.__path__, "tui_app.") if info.ispkg}
    assert found == {"tui_app.charts", "tui_app.screens", "tui_app.widgets", "tui_app.dialogs"}


def test_widgets_never_import_screens_or_the_app_and_screens_never_each_other() -> None:
    for file in (ROOT / "tui_app" / "widgets").glob("*.py"):
        text = file.read_text()
        assert "tui_app.screens" not in text, file
        assert "from tui_app.app" not in text, file
    for file in (ROOT / "tui_app" / "screens").glob("*.py"):
        assert "tui_app.screens" not in file.read_text(), file
