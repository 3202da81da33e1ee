"""The folders in which a user keeps models are remembered, and a broken list stops nobody."""

from pathlib import Path

import pytest

from core.errors import SftuiError
from core.models.folders import forget_folder, remember_folder, remembered_folders
from core.paths import config_home


def test_the_latest_comes_first_and_each_once() -> None:
    assert remembered_folders() == ()
    for name in ("/a", "/b", "/a"):
        remember_folder(Path(name))
    assert remembered_folders() == (Path("/a"), Path("/b"))
    forget_folder(Path("/a"))
    forget_folder(Path("/nowhere"))
    assert remembered_folders() == (Path("/b"),)


def test_a_name_that_is_no_unicode_is_kept() -> None:
    strange = Path("/models/\udcff")
    remember_folder(strange)
    assert remembered_folders() == (strange,)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"folders": 3}', '{"folders": [3, null]}'])
def test_a_broken_list_is_as_good_as_none(content: str) -> None:
    config_home().mkdir(parents=True)
    (config_home() / "model_folders.json").write_text(content)
    assert remembered_folders() == ()
    remember_folder(Path("/a"))
    assert remembered_folders() == (Path("/a"),)


def test_what_cannot_be_kept_is_said() -> None:
    config_home().parent.mkdir(parents=True)
    config_home().write_text("in the way")
    with pytest.raises(SftuiError, match="remembered"):
        remember_folder(Path("/a"))
