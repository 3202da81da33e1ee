"""What becomes of each row on its way through the pass: recognised, brought into form, checked, counted, indexed."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.data.column_types import ColumnTypes
from core.data.facts import DataFacts, SourceFacts
from core.data.formats import Column, Recognised, recognise
from core.data.mapping import ColumnMapping, canonical, doubt
from core.data.problem_report import ProblemReport
from core.data.row_store import RECORD, ROWS_NAME, StoredFile, StoredSource, index_name, only, pack, write_store
from core.data.rows import Fault, Row
from core.data.seen_hashes import SeenHashes
from core.data.sources import SourceFiles
from core.data.splits import first_rows

REPORT_NAME = "problems.jsonl"
_PREVIEW_ROWS = 50
_PREVIEW_BYTES = 2**20
_SAMPLE_ROWS = 20
_TEXT_LIMIT, _LIST_LIMIT, _DEPTH_LIMIT = 2000, 50, 8
# What a source is, is seen from so many objects, among so many rows at most.
_LOOKED_AT, _WAITING = 50, 1000
_BUFFER = 2**20
_DUPLICATE = Fault("duplicate", "", "The row says the same as one before.", "Remove it, or leave it.", "warning")


class RowPass:
    """Takes the rows of one source after the other and writes a store of them into a folder."""

    def __init__(self, folder: Path, columns: Sequence[tuple[str, str]]) -> None:
        self._folder = folder
        self._told = ColumnMapping.from_dict(dict(columns))
        self._closing = ExitStack()
        self._copies = self._closing.enter_context((folder / ROWS_NAME).open("wb", buffering=_BUFFER))
        self._copied = 0
        self._report = ProblemReport(self._closing.enter_context((folder / REPORT_NAME).open("wb", buffering=_BUFFER)))
        self._seen = SeenHashes()
        self._duplicates = 0
        self._with_images = 0
        self._sources: list[SourceFacts] = []
        self._stored: list[StoredSource] = []
        self._hashes: list[str] = []
        self._fractions: list[float | None] = []
        self._splits: list[str] = []
        self._columns: tuple[Column, ...] = ()
        self._preview: list[dict[str, Any]] = []
        self._preview_room = _PREVIEW_BYTES
        self._sample: tuple[dict[str, Any], ...] = ()
        self.good = 0
        """Rows of all sources until now that can be trained on."""
        self.hopeless = False
        """Whether reading on in this source would only say again that no column is known."""

    def __enter__(self) -> "RowPass":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def problems(self) -> int:
        """How much was said about rows until now."""
        return self._report.count

    def begin(self, source: SourceFiles, files: Sequence[StoredFile]) -> None:
        """Start with the rows of another source."""
        self._source, self._files = source, tuple(files)
        self._only = source.source.columns
        name = self._folder / index_name(len(self._sources))
        self._index = self._closing.enter_context(name.open("wb", buffering=_BUFFER))
        self._found: Recognised | None = None
        self._mapping: ColumnMapping | None = None
        self.hopeless = False
        self._waiting: list[tuple[Row, int]] = []
        self._objects: list[dict[str, Any]] = []
        self._types = ColumnTypes()
        self._hash = hashlib.sha256()
        self._good_before, self._bad = self.good, 0

    def take(self, row: Row, file: int) -> None:
        """The next row of the source, from its file of this number."""
        if self._only is not None:
            row.value = only(row.value, self._only)
        if self._mapping is not None:
            self._judge(row, file, self._mapping)
            return
        self._waiting.append((row, file))
        if isinstance(row.value, dict):
            self._objects.append(row.value)
        if len(self._objects) == _LOOKED_AT or len(self._waiting) == _WAITING:
            self._look()

    def end(self) -> None:
        """The source has no more rows."""
        self._look()
        self._index.close()
        found = self._found or recognise(())
        rows, size = self.good - self._good_before, sum(file.size for file in self._files)
        self._columns = self._columns or found.columns
        self._hashes.append(self._hash.hexdigest())
        self._fractions.append(self._source.source.fraction)
        self._splits.append(self._source.source.split)
        self._stored.append(StoredSource(rows, self._only, found.mapping, self._files))
        self._sources.append(
            SourceFacts(
                label=self._source.label,
                files=self._source.files,
                form=found.form,
                format_name=found.format_name,
                reason=found.reason,
                mapping=found.mapping,
                rows=rows,
                used=rows,
                bad_rows=self._bad,
                bytes=size,
            )
        )

    def finish(self) -> DataFacts:
        """Write down what the folder holds, and tell what was found."""
        there = [first_rows(split, source.rows) for split, source in zip(self._splits, self._sources, strict=True)]
        used = used_rows(there, self._fractions)
        sources = [replace(source, used=count) for source, count in zip(self._sources, used, strict=True)]
        self._closing.close()
        for name, empty in ((ROWS_NAME, self._copied == 0), (REPORT_NAME, self._report.count == 0)):
            if empty:
                (self._folder / name).unlink()
        write_store(self._folder, [replace(one, rows=count) for one, count in zip(self._stored, used, strict=True)])
        first = next((source for source in sources if source.form != "unknown"), sources[0] if sources else None)
        return DataFacts(
            form=first.form if first else "unknown",
            reason=first.reason if first else "there are no rows",
            rows=sum(used),
            columns=self._columns,
            preview=tuple(self._preview),
            problems=self._report.first,
            files=tuple(file for source in sources for file in source.files),
            format_name=first.format_name if first else "unknown",
            mapping=first.mapping if first else ColumnMapping(),
            sources=tuple(sources),
            sample=self._sample,
            bad_rows=sum(source.bad_rows for source in sources),
            counts_by_kind=dict(self._report.by_kind),
            duplicates=self._duplicates,
            with_images=self._with_images,
            content_hash=hashlib.sha256(repr([*zip(self._hashes, used, strict=True)]).encode()).hexdigest(),
            bytes=sum(source.bytes for source in sources),
        )

    def _look(self) -> None:
        if self._objects:
            self._found = self._mapped(recognise(self._objects))
            self._mapping = self._found.mapping
            self.hopeless = self._mapping.form == "unknown"
            self._sample = self._sample or tuple(shortened(value) for value in self._objects[:_SAMPLE_ROWS])
        waiting, self._waiting, self._objects = self._waiting, [], []
        for row, file in waiting:
            self._judge(row, file, self._mapping or ColumnMapping())

    def _mapped(self, found: Recognised) -> Recognised:
        told = self._told
        # Those of another file, whose columns this one has not, say nothing of it.
        if not told.needed or not {*told.needed} <= {column.name for column in found.columns}:
            return found
        reason = "its columns are named by hand"
        return replace(found, form=told.form, format_name="columns named by hand", mapping=told, reason=reason)

    def _judge(self, row: Row, file: int, mapping: ColumnMapping) -> None:
        if row.problem is not None:
            self._bad += row.problem.level == "error"
            self._report.add(row.problem)
            return
        made = canonical(row.value, mapping)
        if isinstance(made, Fault):
            self._bad += 1
            self._report.add(made.at(row.file, row.line))
            return
        self._with_images += bool(made.get("images"))
        packed = pack(made)
        self._hash.update(packed + b"\n")
        if self._seen.add(hash(packed)):
            self._duplicates += 1
            self._report.add(_DUPLICATE.at(row.file, row.line))
        if (doubtful := doubt(made)) is not None:
            self._report.add(doubtful.at(row.file, row.line))
        if (changed := self._types.changed(row.value)) is not None:
            self._report.add(changed.at(row.file, row.line))
        if row.offset is None or row.length is None:
            self._copies.write(packed + b"\n")
            self._index.write(RECORD.pack(self._copied, len(packed), row.line, 2 * file + 1))
            self._copied += len(packed) + 1
        else:
            self._index.write(RECORD.pack(row.offset, row.length, row.line, 2 * file))
        self.good += 1
        if len(self._preview) < _PREVIEW_ROWS and len(packed) <= self._preview_room:
            self._preview_room -= len(packed)
            self._preview.append(made)


def used_rows(counts: Sequence[int], fractions: Sequence[float | None]) -> list[int]:
    """How many rows of each source are used: as TRL does it, the largest mixture that has these shares."""
    shares = [fraction for fraction in fractions if fraction is not None]
    if not shares or len(shares) < len(counts):
        return list(counts)
    weights = [share / sum(shares) for share in shares]
    total = min(count / weight for count, weight in zip(counts, weights, strict=True))
    return [round(weight * total) for weight in weights]


def shortened(value: Any, depth: int = 0) -> Any:
    """A value as it was read, without what is too long to be shown."""
    if isinstance(value, str):
        # Half characters go into no file.
        text = value if len(value) <= _TEXT_LIMIT else value[:_TEXT_LIMIT] + "…"
        return text.encode("utf-8", "replace").decode()
    if isinstance(value, dict | list) and depth == _DEPTH_LIMIT:
        return "…"
    if isinstance(value, dict):
        return {shortened(name): shortened(inner, depth + 1) for name, inner in list(value.items())[:_LIST_LIMIT]}
    if isinstance(value, list):
        return [shortened(inner, depth + 1) for inner in value[:_LIST_LIMIT]]
    return value
