"""What a dataset is, after one pass over it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.data.formats import Column
from core.data.mapping import ColumnMapping
from core.data.rows import DataProblem, Form, ProblemKind


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is."""

    bytes_done: int
    bytes_total: int
    rows: int
    problems: int
    bytes_per_second: float
    """Over the pass until now; 0 before the first is known."""
    downloading: bool = False
    """The bytes are those of files that come from the hub, before they are read."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What one entry of `datasets` holds."""

    label: str
    """As the user named it."""
    files: tuple[Path, ...]
    form: Form
    format_name: str
    reason: str
    mapping: ColumnMapping
    rows: int
    """Good ones."""
    used: int
    """The first so many good rows are in the store: fewer than `rows` where `fraction` says so."""
    bad_rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a dataset is, after one pass over it. The first source speaks for form, mapping and columns."""

    form: Form
    reason: str
    rows: int
    """Good ones that are used: the length of the store."""
    columns: tuple[Column, ...]
    preview: tuple[dict[str, Any], ...]
    """The first good rows, in canonical form."""
    problems: tuple[DataProblem, ...]
    """The first ones; all of them are in the report."""
    files: tuple[Path, ...]
    format_name: str = ""
    mapping: ColumnMapping = field(default_factory=ColumnMapping)
    sources: tuple[SourceFacts, ...] = ()
    sample: tuple[dict[str, Any], ...] = ()
    """The first rows as they were read, long texts cut."""
    bad_rows: int = 0
    """Rows that cannot be trained on; they are not in the store."""
    counts_by_kind: Mapping[ProblemKind, int] = field(default_factory=dict)
    """Of errors and warnings."""
    duplicates: int = 0
    """Good rows that say the same as an earlier one; they are kept."""
    with_images: int = 0
    """Good rows that show images."""
    report: Path | None = None
    """A file with every problem, one JSON object a line; None if there is none."""
    store: Path | None = None
    """The folder of the good rows; None if there are no rows."""
    content_hash: str = ""
    """Of the good rows that are used, whatever files they stand in."""
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file or another process."""
        told = asdict(self)
        told["mapping"] = self.mapping.to_dict()
        for source, facts in zip(told["sources"], self.sources, strict=True):
            source["mapping"] = facts.mapping.to_dict()
        plain: dict[str, Any] = _plain(told)
        return plain

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "DataFacts":
        """The facts that `to_json` told. Raises KeyError or TypeError for what is no such thing."""
        return cls(
            **{
                **told,
                "columns": tuple(Column(**column) for column in told["columns"]),
                "preview": tuple(told["preview"]),
                "sample": tuple(told["sample"]),
                "problems": tuple(DataProblem(**{**one, "file": Path(one["file"])}) for one in told["problems"]),
                "files": tuple(map(Path, told["files"])),
                "mapping": ColumnMapping.from_dict(told["mapping"]),
                "sources": tuple(
                    SourceFacts(
                        **{
                            **source,
                            "files": tuple(map(Path, source["files"])),
                            "mapping": ColumnMapping.from_dict(source["mapping"]),
                        }
                    )
                    for source in told["sources"]
                ),
                "report": told["report"] and Path(told["report"]),
                "store": told["store"] and Path(told["store"]),
            }
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
