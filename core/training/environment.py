"""Where a run happens: versions, host, options; and what of it is no longer as it was when a checkpoint was made."""

import json
import os
import platform
from importlib import metadata
from typing import Any

from core.devices.host import boot_id, out_of_memory_kills
from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.folder import RunFolder

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "sftui")
# Other versions of these can compute something else; of the rest, another version reads rows or files otherwise.
_COMPUTING = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def put_down(folder: RunFolder) -> list[tuple[str, str]]:
    """Write the environment of a run that begins or goes on. Returns what changed since it was last written.

    Each change is a title and a message that says what it means for the result. Raises OSError.
    """
    now = _environment(folder)
    changes = _changes(_last(folder), now)
    write_atomically(folder.environment_file, json.dumps(now, indent=1))
    return changes


def _environment(folder: RunFolder) -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": platform.node(),
        "packages": versions,
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "spec": _options(folder),
        "start": _start(folder),
    }


def _start(folder: RunFolder) -> dict[str, Any]:
    """What tells afterwards why a runner is gone that could not say so itself."""
    kills = out_of_memory_kills()
    return {
        "boot": boot_id(),
        "log_bytes": folder.log_file.stat().st_size if folder.log_file.exists() else 0,
        "kills_file": str(kills[0]) if kills else None,
        "kills": kills[1] if kills else None,
    }


def _options(folder: RunFolder) -> dict[str, Any]:
    try:
        values = folder.spec_values()
    except SftuiError:
        return {}
    section = values.pop("sftui", None)
    if isinstance(section, dict):
        values.update({f"sftui.{name}": value for name, value in section.items()})
    # As they come back from the file.
    options: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return options


def _last(folder: RunFolder) -> dict[str, Any] | None:
    try:
        read = json.loads(folder.environment_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _changes(before: dict[str, Any] | None, now: dict[str, Any]) -> list[tuple[str, str]]:
    if before is None:
        return []
    found = []
    packages = _differing(before.get("packages"), now["packages"])
    if packages:
        exact = not any(name in _COMPUTING for name, _, _ in packages)
        meaning = (
            "The result is not touched by it." if exact else "The rest of the run may come out otherwise, by a little."
        )
        found.append(("Other versions than before", f"{_in_words(packages)}. {meaning}"))
    if before.get("host") != now["host"]:
        message = f"{before.get('host')} before, {now['host']} now: another processor or GPU rounds otherwise."
        found.append(("Another machine than before", message))
    options = _differing(before.get("spec"), now["spec"])
    if options:
        message = f"{_in_words(options)}. It holds from the checkpoint on; the steps before it were made without it."
        found.append(("Other options than before", message))
    return found


def _differing(before: Any, now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    if not isinstance(before, dict):
        return []
    names = [*before, *(name for name in now if name not in before)]
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _in_words(changes: list[tuple[str, Any, Any]]) -> str:
    return ", ".join(f"{name}: {old} → {new}" for name, old, new in changes)
