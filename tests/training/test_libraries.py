"""Importing the libraries runs nobody's code but theirs."""

import os
import subprocess
import sys
from pathlib import Path


def test_importing_the_libraries_asks_no_hub_for_a_kernel(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "kernels.py").write_text(
        f"from pathlib import Path\ndef get_kernel(*_, **__):\n    Path({str(canary)!r}).touch()\n    raise OSError\n"
    )
    script = (
        "from core.training.libraries import import_libraries\n"
        "import_libraries()\n"
        "import sys, kernels\n"
        "assert 'bitsandbytes' in sys.modules and 'trl' in sys.modules\n"
        "assert kernels.get_kernel, 'the package is back for those who were allowed to use it'\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not canary.exists()
