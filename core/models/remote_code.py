"""Code that a model's repository brings: which files would run, and whether the user has allowed them.

Nothing of it is ever imported here. Permission is for one repository at one revision; it is kept in
`allowed_code.json` in the settings folder: {"org/name": "<commit>", "/models/mine": "sha256-…"}.
"""

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.models.checkpoint_files import hub_cache, read_json_object
from core.models.hub_client import page_of
from core.paths import config_home, write_atomically
from core.text import safe, shorten

_OTHER_CONFIGS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_REFERENCE = re.compile(r"(?:(?P<repository>[^\s:]+)--)?(?P<module>\w+)\.(?P<name>\w+)")
_OWN_IMPORT = re.compile(rb"^[ \t]*from\s+\.([A-Za-z0-9_]+)[\w.]*\s+import\b", re.MULTILINE)
_OWN_MODULES = re.compile(rb"^[ \t]*from\s+\.\s+import\s+(\([^)]*\)|[^\n#]*)", re.MULTILINE)
_SNAPSHOT = re.compile(r"models--(?P<id>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40,64})\Z")
_BROKEN_LIST = "The list of allowed code cannot be read"
_MAX_CODE_BYTES = 10_000_000


@dataclass(frozen=True)
class RemoteCode:
    """The Python files of a model that loading it with remote code would run."""

    files: tuple[str, ...]
    """Also those that the named files import from their own folder; "org/name: file.py" lies in another repository."""
    missing: tuple[str, ...]
    """Of `files`, those that are not in the folder."""
    repository: str
    """A hub id, or the folder's path."""
    revision: str
    """The commit of a snapshot in the Hugging Face cache; of another folder, a checksum of the files."""
    fetchable: bool = False
    """Whether a download can bring what is missing: the code is the model's own, and the model lies in the cache."""

    @property
    def allowable(self) -> bool:
        """Whether a permission would make the model load: all of the code is here, or can be fetched then."""
        return self.fetchable or not self.missing

    @property
    def page(self) -> str:
        """Where the files of a hub repository can be read at this revision."""
        return f"{page_of(self.repository)}/tree/{self.revision}"


class CodeNotAllowedError(SftuiError):
    """The model runs code of its own, which nobody has allowed yet."""

    remote: RemoteCode

    def __init__(self, model_type: str, remote: RemoteCode) -> None:
        files = safe(shorten(", ".join(remote.files), 200))
        entry = json.dumps({remote.repository: remote.revision}, ensure_ascii=False)
        super().__init__(
            "This model runs its own code",
            f"“{model_type}” is not a model of transformers: it is loaded by code from its own repository (auto_map), "
            f"which could do anything on this machine: {files} of {safe(remote.repository)} "
            f"at {safe(remote.revision)}.",
            "Choose a version that transformers supports itself, or, when you have read these files"
            f"{' at ' + safe(remote.page) if remote.fetchable and remote.missing else ''} and trust them, "
            f"allow them with ctrl+o on sftui's Model screen, or put {safe(entry)} into {safe(str(_list_path()))}.",
        )
        self.remote = remote


class CodeNotHereError(SftuiError):
    """The model runs code of its own, which is allowed but not here."""

    remote: RemoteCode

    def __init__(self, folder: Path, remote: RemoteCode) -> None:
        hint = "Download the model again, with its Python files."
        if remote.fetchable:
            files = safe(" ".join(remote.missing))
            command = f"hf download {safe(remote.repository)} {files} --revision {remote.revision}"
            hint = f"Fetch them with Enter on sftui's Model screen, or: {command}"
        missing = safe(shorten(", ".join(remote.missing), 200))
        super().__init__(
            "The model's code is missing",
            f"{safe(str(folder))} names {missing} as its code, and has no such file.",
            hint,
        )
        self.remote = remote


def find_remote_code(folder: Path, config: dict[str, Any]) -> RemoteCode | None:
    """Return what code the model in `folder` brings; None when its config.json names none.

    Raises SftuiError when it names its code in a way that cannot be followed.
    """
    if not config.get("auto_map"):
        return None
    references = _references(config["auto_map"])
    for name in _OTHER_CONFIGS:
        with contextlib.suppress(SftuiError, OSError):
            references += _references(read_json_object(folder / name, "").get("auto_map") or {})
    own: list[str] = []
    sources: dict[str, bytes] = {}
    unread = [module for repository, module in references if not repository]
    while unread:
        module = unread.pop(0)
        if module in own:
            continue
        own.append(module)
        source = _read(folder / f"{module}.py")
        if source is not None:
            sources[module] = source
            unread += _own_imports(source)
    foreign = tuple(f"{repository}: {module}.py" for repository, module in references if repository)
    files = (*(f"{module}.py" for module in sorted(own)), *foreign)
    missing = (*(f"{module}.py" for module in sorted(own) if module not in sources), *foreign)
    snapshot = _SNAPSHOT.search(folder.absolute().as_posix())
    if snapshot is not None:
        in_cache = folder.absolute().parents[2] == hub_cache().absolute()
        repository = snapshot["id"].replace("--", "/")
        return RemoteCode(files, missing, repository, snapshot["commit"], in_cache and not foreign)
    digest = hashlib.sha256()
    for module in sorted(sources):
        digest.update(f"{module}\0{len(sources[module])}\0".encode() + sources[module])
    return RemoteCode(files, missing, str(folder.resolve()), f"sha256-{digest.hexdigest()[:32]}")


def is_allowed(remote: RemoteCode) -> bool:
    """Whether the user has allowed this code at this revision; code of another repository never is.

    Raises SftuiError when the list cannot be read.
    """
    if any(": " in name for name in remote.missing):
        return False
    return _allowed().get(remote.repository) == remote.revision


def allow(remote: RemoteCode) -> None:
    """Allow this code at this revision, and no other revision of the same repository. Raises SftuiError."""
    path = _list_path()
    content = json.dumps(_allowed() | {remote.repository: remote.revision}, indent=2, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise SftuiError("The permission cannot be kept", f"{safe(str(path))}: {error.strerror}.") from error


def _list_path() -> Path:
    return config_home() / "allowed_code.json"


def _allowed() -> dict[str, Any]:
    return read_json_object(_list_path(), _BROKEN_LIST) if _list_path().exists() else {}


def _references(auto_map: Any) -> list[tuple[str, str]]:
    """Return (other repository or "", module) of each class; a tokenizer has a pair of them, or null."""
    values = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
    found = []
    for value in values:
        for entry in value if isinstance(value, list) else [value]:
            match = _REFERENCE.fullmatch(entry) if isinstance(entry, str) else None
            if match is not None:
                found.append((match["repository"] or "", match["module"]))
            elif entry is not None:
                raise SftuiError(
                    "The model's code cannot be found",
                    f"auto_map names {safe(shorten(repr(entry), 80))}, which is no class of a Python file.",
                )
    return list(dict.fromkeys(found))


def _own_imports(source: bytes) -> list[str]:
    """Return the modules that a file imports from its own folder, as transformers finds them."""
    named = [match.decode() for match in _OWN_IMPORT.findall(source)]
    for names in _OWN_MODULES.findall(source):
        named += re.findall(r"\w+", re.sub(r"\bas\s+\w+|#.*", "", names.decode(errors="replace")))
    return named


def _read(path: Path) -> bytes | None:
    try:
        if path.is_file() and path.stat().st_size <= _MAX_CODE_BYTES:
            return path.read_bytes()
    except OSError:
        pass
    return None
