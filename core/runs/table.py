"""All runs, a line each, at once however many they are: what has not changed is taken from a file of lines."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from core import paths
from core.runs.ends import read_ends
from core.runs.events import PeakMeasured, finite
from core.runs.folder import RunFolder, RunSummary, all_runs, summary_of
from core.runs.notes import read_notes
from core.runs.state import RunState
from core.runs.tags import read_tags

_VERSION = 1
Stamp = list[int]


class RunTable:
    """The lines of runs that have ended, kept over the ends of programs. Anything in its file may be thrown away."""

    def __init__(self) -> None:
        self._file = paths.cache_home() / "runs.json"
        self._known: dict[str, tuple[Stamp, RunSummary]] = _read(self._file)
        self._data: dict[Path, tuple[int, str]] = {}
        self._changed = False

    def ended(self, folder: RunFolder) -> RunSummary:
        """The line of a run that nobody works on."""
        stamp = _stamp(folder)
        known = self._known.get(str(folder.path))
        if known is None or known[0] != stamp:
            state = read_ends(folder.journal_file)
            known = stamp, self._with_words(folder, summary_of(folder, state, alive=False))
            self._known[str(folder.path)] = known
            self._changed = True
        return known[1]

    def live(self, folder: RunFolder, state: RunState) -> RunSummary:
        """The line of a run whose runner lives, in this state."""
        return self._with_words(folder, summary_of(folder, state, alive=True))

    def _with_words(self, folder: RunFolder, line: RunSummary) -> RunSummary:
        changed = _stamp(folder)[3]
        known = self._data.get(folder.path)
        if known is None or known[0] != changed:
            known = self._data[folder.path] = changed, _data(folder)
        return dataclasses.replace(line, data=known[1], tags=read_tags(folder), notes=len(read_notes(folder)))

    def keep(self) -> None:
        """Write the lines down, where there are new ones. Those of runs that are gone are left out."""
        if not self._changed:
            return
        self._changed = False
        lines = {
            path: {"stamp": stamp, "line": finite({**dataclasses.asdict(line), "path": path})}
            for path, (stamp, line) in self._known.items()
            if Path(path).exists()
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Not orjson, which has no words for half a surrogate pair, as a model's name may have.
            paths.write_atomically(self._file, json.dumps({"version": _VERSION, "runs": lines}))
        except OSError:
            # It only spares time.
            return


def list_runs() -> tuple[RunSummary, ...]:
    """Every run, the newest first."""
    table = RunTable()
    found = []
    for folder in all_runs():
        alive = folder.is_alive()
        found.append(table.live(folder, read_ends(folder.journal_file)) if alive else table.ended(folder))
    table.keep()
    return tuple(found)


def _data(folder: RunFolder) -> str:
    from core.errors import SftuiError

    try:
        sources = folder.spec_values().get("datasets") or []
    except (OSError, SftuiError):
        return ""
    return ", ".join(_name(source) for source in sources if isinstance(source, dict))


def _name(source: dict[str, Any]) -> str:
    files = source.get("data_files")
    named = files if isinstance(files, str) else files[0] if isinstance(files, list) and files else source.get("path")
    return str(named or "").rstrip("/").rpartition("/")[2]


def _stamp(folder: RunFolder) -> Stamp:
    # Of a thousand runs at every look: plain strings take a third of the time that paths do.
    base = str(folder.path)
    stamp: Stamp = []
    for name in ("events.jsonl", "run.yaml", "tags.json", "notes.jsonl"):
        try:
            facts = os.stat(f"{base}/{name}")  # noqa: PTH116
        except OSError:
            stamp += [0, 0]
        else:
            stamp += [facts.st_size, facts.st_mtime_ns]
    return stamp


def _read(file: Path) -> dict[str, tuple[Stamp, RunSummary]]:
    try:
        kept = json.loads(file.read_bytes())
        if kept["version"] != _VERSION:
            return {}
        return {path: (entry["stamp"], _summary(entry["line"])) for path, entry in kept["runs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _summary(fields: dict[str, Any]) -> RunSummary:
    peak = fields["peak"]
    return RunSummary(
        **{
            **fields,
            "path": Path(fields["path"]),
            "peak": PeakMeasured(**peak) if peak else None,
            # A loss that is no number is kept as a word.
            **{name: None if fields[name] is None else float(fields[name]) for name in ("loss", "held_out")},
            "tags": tuple(fields["tags"]),
        }
    )
