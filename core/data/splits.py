"""Which files of a folder or a hub's repository belong to a configuration and a split: as `datasets` sees it.

What a dataset's card says comes first; without it, a split is named by a folder or a part of a file's name.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from core.data.readers import DATA_SUFFIXES, PACKED_SUFFIXES
from core.data.request import Source
from core.errors import SftuiError
from core.spec import plain_yaml
from core.text import safe

CARD_NAME = "README.md"
# Beside the rows, not among them.
_NO_DATA = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_SPLIT_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
_KINDS = {
    ".ndjson": ".json",
    ".jsonl": ".json",
    ".tab": ".tsv",
    ".pq": ".parquet",
    ".feather": ".arrow",
    ".ipc": ".arrow",
}
_SLICE = re.compile(r"\[:(?P<count>\d+)(?P<share>%?)\]")
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
_SIGNS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^]/]+\]|.", re.DOTALL)


def data_suffix(name: str) -> str:
    """The suffix that says how a file's rows are written, whatever it is packed with; empty without one."""
    name = PurePosixPath(name).name.lower()
    for suffix in PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    return PurePosixPath(name).suffix


def is_data_file(name: str) -> bool:
    """Whether a file of this name may hold rows."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return not hidden and path.name.lower() not in _NO_DATA and data_suffix(name) in DATA_SUFFIXES


def without_notes(names: Sequence[str]) -> list[str]:
    """The data files among the names; texts only where there is nothing else, for notes and licences are texts too."""
    files = [name for name in names if is_data_file(name)]
    return [name for name in files if data_suffix(name) != ".txt"] or files


def of_one_kind(names: Sequence[str]) -> list[str]:
    """Those of the kind that most are of: a repository may hold the same rows twice."""
    kinds = [_KINDS.get(suffix, suffix) for suffix in map(data_suffix, names)]
    if not kinds:
        return []
    most = Counter(kinds).most_common(1)[0][0]
    return [name for name, kind in zip(names, kinds, strict=True) if kind == most]


def choose_files(names: Sequence[str], card: str, source: Source, where: str) -> list[str]:
    """The files of a source's configuration and split, among all names of its folder or repository.

    `card` is the text of README.md, `where` how to call the place. Raises SftuiError if there are none.
    """
    names = sorted(names)
    source = replace(source, split=split_name(source.split))
    if source.data_files is not None:
        return _matching(names, source.data_files, source.data_dir, where)
    configs = {} if source.data_dir is not None else configurations(card)
    if not configs:
        if source.name not in (None, "default"):
            raise _no_such("configuration", source.name or "", [], where)
        return _by_names(names, source.data_dir, source.split, where)
    config = _configuration(configs, source.name, where)
    folder = config.get("data_dir")
    if "data_files" not in config:
        return _by_names(names, folder, source.split, where)
    patterns = _by_split(config["data_files"])
    if source.split not in patterns:
        raise _no_such("split", source.split, list(patterns), where)
    return _matching(names, patterns[source.split], folder, where)


def configurations(card: str) -> dict[str, Mapping[str, Any]]:
    """What a dataset's card says of its configurations, by their names; nothing if it says nothing."""
    front = _FRONT.match(card.removeprefix("\ufeff"))
    try:
        told = plain_yaml.load(front[1]) if front else None
    except (yaml.YAMLError, RecursionError):
        return {}
    configs = told.get("configs") if isinstance(told, dict) else None
    entries = [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []
    named = {str(entry["config_name"]): entry for entry in entries if "config_name" in entry}
    # Others only say how the files of the folder are to be read.
    return {name: entry for name, entry in named.items() if "data_files" in entry or "data_dir" in entry}


def split_name(split: str) -> str:
    """The split itself, of which `train[:10%]` takes a part."""
    return split.partition("[")[0]


def first_rows(split: str, rows: int) -> int:
    """How many of so many good rows a split takes: all, or the first ones as `train[:1000]` or `train[:10%]` say.

    Raises SftuiError for a part that is not at the beginning.
    """
    part = split.removeprefix(split_name(split))
    if not part:
        return rows
    found = _SLICE.fullmatch(part)
    if found is None:
        message = f"“{safe(split)}” takes another part of the split than its first rows."
        raise SftuiError("No such part of a split", message, "Write [:1000] for the first rows, or [:10%] for a share.")
    count = int(found["count"])
    return min(rows, round(rows * count / 100) if found["share"] else count)


def choose_split(names: Sequence[str], split: str) -> list[str]:
    """The names, relative to their folder, that belong to a split; files without any are for training."""
    own = [name for name in names if split in _splits_of(name, split)]
    if own or split != "train":
        return own
    return [name for name in names if not _splits_of(name, split)]


def _configuration(configs: Mapping[str, Mapping[str, Any]], name: str | None, where: str) -> Mapping[str, Any]:
    if name is not None:
        if name not in configs:
            raise _no_such("configuration", name, list(configs), where)
        return configs[name]
    default = [key for key, entry in configs.items() if len(configs) == 1 or key == "default" or entry.get("default")]
    if not default:
        message = f"{where} has several, and none is the default: {_listed(list(configs))}."
        raise SftuiError("Which configuration?", message, "Set `name` of the dataset to one of them.")
    return configs[default[0]]


def _by_split(told: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in told if isinstance(told, list) else [told]:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        found.setdefault(str(split), []).extend(map(str, paths if isinstance(paths, list) else [paths]))
    return found


def _by_names(names: Sequence[str], folder: str | None, split: str, where: str) -> list[str]:
    prefix = _prefix(folder)
    inside = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    files = without_notes(list(inside))
    if not files:
        kinds = ", ".join(suffix for suffix in DATA_SUFFIXES if suffix != ".txt")
        message = f"{where}{f' has nothing in {folder}' if prefix else ' has no file'} that ends in {kinds}."
        raise SftuiError("There is no data", message, "Name the files in data_files, or another place.")
    chosen = choose_split(files, split)
    if not chosen:
        known = [name for name in _SPLIT_WORDS if any(name in _splits_of(file, name) for file in files)]
        raise _no_such("split", split, known, where)
    return [inside[name] for name in chosen]


def _matching(names: Sequence[str], patterns: Sequence[str], folder: str | None, where: str) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        whole = _prefix(folder) + pattern.removeprefix("./")
        fits = re.compile(_as_expression(whole) + "|" + _as_expression(whole.rstrip("/")) + "/.*", re.DOTALL)
        matching = [name for name in names if fits.fullmatch(name)]
        # Pictures and the like lie beside the rows.
        files = [name for name in matching if is_data_file(name)] or [name for name in matching if name == whole]
        if not files:
            message = f"{where} has no data file that fits {safe(pattern)}."
            raise SftuiError("No such data file", message, "Name files that are there in data_files.")
        found.update(dict.fromkeys(files))
    return list(found)


def _prefix(folder: str | None) -> str:
    return f"{folder.removeprefix('./').strip('/')}/" if folder and folder.strip("./") else ""


def _as_expression(pattern: str) -> str:
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meant.get(sign) or (sign.replace("[!", "[^") if len(sign) > 1 else re.escape(sign))
        for sign in _SIGNS.findall(pattern)
    )


def _splits_of(name: str, wanted: str) -> set[str]:
    path = PurePosixPath(name.lower())
    return _named_in("/".join(path.parts[:-1]), wanted) or _named_in(path.name, wanted)


def _named_in(text: str, wanted: str) -> set[str]:
    words = set(re.findall("[a-z]+", text))
    found = {split for split, known in _SPLIT_WORDS.items() if words & known}
    # A split of another name, such as train_sft, is no part of a word either.
    if wanted not in _SPLIT_WORDS and re.search(rf"(?<![a-z0-9]){re.escape(wanted.lower())}(?![a-z0-9_])", text):
        return {wanted}
    return found


def _no_such(what: str, name: str, known: Sequence[str], where: str) -> SftuiError:
    message = f"{where} has no {what} “{safe(name)}”"
    message += f"; there are {_listed(known)}." if known else "."
    fix = f"Set `{'name' if what == 'configuration' else 'split'}` of the dataset to one of them."
    return SftuiError(f"No such {what}", message, fix if known else "Leave it out.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(safe, names[:12])) + (", …" if len(names) > 12 else "")
