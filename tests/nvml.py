"""Builds the stub of NVIDIA's management library; stubs/nvml_stub.c lists what it can be told to answer."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parent / "stubs" / "nvml_stub.c"
_LIBRARY = "libnvidia-ml.so.1"


def build_stub(directory: Path) -> Path:
    """Compile the stub into `directory` and return that folder, to be put in front of LD_LIBRARY_PATH.

    LD_LIBRARY_PATH is read when a process starts, so the stub serves subprocesses. Skips the test where there
    is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to build the NVML stub with")
    library = directory / _LIBRARY
    if not library.exists():
        command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{_LIBRARY}"]
        subprocess.run([*command, "-o", str(library), str(_SOURCE)], check=True)
    return directory
