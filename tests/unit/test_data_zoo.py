"""The zoo of data files: each is recognised, each bad row is told with its line, and all others are kept."""

from pathlib import Path

import pytest

from core.data.check import read_facts
from core.data.column_types import ColumnTypes
from core.data.formats import recognise
from core.data.mapping import canonical, doubt
from core.data.readers import read_rows
from core.data.rows import DataProblem, Fault
from tests.data_zoo import BAD, GOOD, ZOO, Specimen


def walk_through(file: Path) -> tuple[str, str, dict[str, str], int, list[DataProblem]]:
    """Read, recognise and check a file: its form and format, the mapping, how many rows are kept, the problems."""
    rows = list(read_rows(file))
    recognised = recognise([row.value for row in rows if isinstance(row.value, dict)])
    types = ColumnTypes()
    kept = 0
    problems: list[DataProblem] = []
    for row in rows:
        if row.problem is not None:
            problems.append(row.problem)
            continue
        made = canonical(row.value, recognised.mapping)
        kept += not isinstance(made, Fault)
        faults: list[Fault | None] = [made] if isinstance(made, Fault) else [doubt(made)]
        if isinstance(row.value, dict):
            faults.append(types.changed(row.value))
        problems += [fault.at(row.file, row.line) for fault in faults if fault is not None]
    return recognised.form, recognised.format_name, recognised.mapping.to_dict(), kept, problems


def test_the_zoo_is_large_enough() -> None:
    assert len(GOOD) >= 50 and len(BAD) >= 45
    assert len({specimen.name for specimen in ZOO}) == len(ZOO)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_a_file_is_recognised_and_its_bad_rows_are_told(tmp_path: Path, specimen: Specimen) -> None:
    file = tmp_path / specimen.name
    file.write_bytes(specimen.content)
    form, format_name, mapping, kept, problems = walk_through(file)
    told = {
        level: [(problem.line, problem.kind) for problem in problems if problem.level == level]
        for level in ("error", "warning")
    }
    assert (form, format_name, kept) == (specimen.form, specimen.format_name, specimen.kept)
    assert told == {"error": list(specimen.problems), "warning": list(specimen.warnings)}
    assert mapping == (specimen.mapping or mapping)
    for problem in problems:
        assert str(problem).startswith(f"{file}:{problem.line}")
        assert problem.message.endswith(".") and problem.fix.endswith(".")


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_the_whole_pass_finds_the_same(tmp_path: Path, specimen: Specimen) -> None:
    file = tmp_path / specimen.name
    file.write_bytes(specimen.content)
    facts = read_facts([file])
    assert (facts.form, facts.rows) == (specimen.form, specimen.kept)
    errors = [(problem.line, problem.kind) for problem in facts.problems if problem.level == "error"]
    assert errors == list(specimen.problems)
