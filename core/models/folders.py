"""The folders in which the user keeps models, remembered in `model_folders.json` in the settings folder."""

import json
from pathlib import Path

from core.errors import SftuiError
from core.models.checkpoint_files import read_json_object
from core.paths import config_home, write_atomically
from core.text import safe

_KEY = "folders"


def remembered_folders() -> tuple[Path, ...]:
    """Return the folders, the latest first; a list that cannot be read is as good as none."""
    try:
        named = read_json_object(_list_path(), "").get(_KEY)
    except SftuiError:
        return ()
    return tuple(Path(name) for name in named if isinstance(name, str)) if isinstance(named, list) else ()


def remember_folder(folder: Path, *, of_a_model: bool = False) -> None:
    """Look into this folder from now on, or if it must be that `of_a_model`, only then.

    Raises SftuiError when that cannot be kept.
    """
    if of_a_model and not (folder / "config.json").is_file():
        return
    _keep((folder, *(known for known in remembered_folders() if known != folder)))


def forget_folder(folder: Path) -> None:
    """Look into this folder no more; nothing in it is touched. Raises SftuiError when that cannot be kept."""
    _keep(tuple(known for known in remembered_folders() if known != folder))


def _keep(folders: tuple[Path, ...]) -> None:
    path = _list_path()
    if folders == remembered_folders():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({_KEY: [str(folder) for folder in folders]}, indent=2) + "\n")
    except OSError as error:
        raise SftuiError("The folder cannot be remembered", f"{safe(str(path))}: {error.strerror}.") from error


def _list_path() -> Path:
    return config_home() / "model_folders.json"
