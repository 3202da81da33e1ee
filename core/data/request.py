"""What is to be checked: the sources of a spec's rows. Hashable, so that facts can be told from those of other data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from core.data.mapping import SLOTS
from core.spec.run_spec import DatasetSource, RunSpec


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of `datasets`, under TRL's names."""

    path: str
    name: str | None = None
    data_dir: str | None = None
    data_files: tuple[str, ...] | None = None
    split: str = "train"
    columns: tuple[str, ...] | None = None
    """The only columns to look at; None for all."""
    fraction: float | None = None

    @classmethod
    def of(cls, entry: DatasetSource) -> "Source":
        """The same as an entry of a spec."""
        return cls(
            entry.path,
            entry.name,
            entry.data_dir,
            entry.named_files(),
            entry.split,
            None if entry.columns is None else tuple(entry.columns),
            entry.fraction,
        )


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What one pass is to read."""

    sources: tuple[Source, ...]
    columns: tuple[tuple[str, str], ...] = ()
    """Slot and column, as `sftui.columns` of a spec has them; empty to recognise them."""

    def to_json(self) -> dict[str, Any]:
        """The form in which it is handed to another process."""
        return {"sources": [asdict(source) for source in self.sources], "columns": dict(self.columns)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "CheckRequest":
        """The request that `to_json` told."""
        return cls(tuple(map(_source, told["sources"])), tuple(told["columns"].items()))


def _source(told: Mapping[str, Any]) -> Source:
    lists = {name: tuple(told[name]) for name in ("data_files", "columns") if told[name] is not None}
    return Source(**{**told, **lists})


def files_request(*files: object) -> CheckRequest:
    """What to check for a list of files, folders or globs alone."""
    return CheckRequest(tuple(Source(str(file)) for file in files))


def training_request(spec: RunSpec) -> CheckRequest:
    """What to check for a spec's training rows."""
    return CheckRequest(tuple(map(Source.of, spec.datasets)), tuple((spec.sftui.columns or {}).items()))


def held_out_request(spec: RunSpec) -> CheckRequest | None:
    """What to check for a spec's file of held-out rows; None if it names none."""
    return _held_out(spec.sftui.held_out_file, tuple((spec.sftui.columns or {}).items()))


def check_request(values: Mapping[str, Any]) -> CheckRequest:
    """What to check for values as they were typed, as far as they are entries of a dataset."""
    entries = values.get("datasets")
    sources: list[Source] = []
    for entry in entries if isinstance(entries, list | tuple) else ():
        try:
            sources.append(Source.of(DatasetSource(path=entry) if isinstance(entry, str) else DatasetSource(**entry)))
        except (ValidationError, TypeError):
            continue
    return CheckRequest(tuple(sources), _columns(values.get("sftui")))


def check_held_out_request(values: Mapping[str, Any]) -> CheckRequest | None:
    """What to check for the file of held-out rows among values as they were typed; None if there is none."""
    section = values.get("sftui")
    path = section.get("held_out_file") if isinstance(section, Mapping) else None
    return _held_out(path.strip() if isinstance(path, str) else None, _columns(section))


def _held_out(path: str | None, columns: tuple[tuple[str, str], ...]) -> CheckRequest | None:
    return CheckRequest((Source(path),), columns) if path else None


def _columns(section: Any) -> tuple[tuple[str, str], ...]:
    columns = section.get("columns") if isinstance(section, Mapping) else None
    pairs = columns.items() if isinstance(columns, Mapping) else ()
    # A slot that there is not is a problem of the spec, not of the rows.
    return tuple((slot, str(column)) for slot, column in pairs if slot in SLOTS)
