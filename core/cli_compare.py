"""The commands that read what runs have left: their figures, and what differs between them."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import SftuiError
from core.text import human_bytes, human_count, human_duration, safe, shorten

if TYPE_CHECKING:
    from core.runs.compare_runs import Difference, Figure
    from core.runs.folder import RunFolder

DONE = 0


def add_compare_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these commands; `command` makes a parser of a name, an action and a help."""
    compare = command("compare", _compare, "What differs between 2 to 6 runs, and what came of it.")
    compare.add_argument("runs", nargs="+", metavar="RUN")
    metrics = command("metrics", _metrics, "All figures of a run, as CSV; with --json as JSON.")
    metrics.add_argument("run")
    metrics.add_argument("-o", "--output", metavar="FILE", help="write here; a name that ends in .json gets JSON")
    tag = command("tag", _tag, "Give a run words to find it by; without any, print those it has.")
    tag.add_argument("run")
    tag.add_argument("tags", nargs="*")
    tag.add_argument("--none", action="store_true", help="take all of its tags away")
    delete = command(
        "delete", _delete, "Delete a run, its checkpoints and its result; without --yes say what it frees."
    )
    delete.add_argument("run")
    delete.add_argument("--yes", action="store_true", help="do it")


def _compare(options: argparse.Namespace) -> int:
    from core.runs.compare_runs import check_count, compare, differences, figures
    from core.runs.events import finite
    from core.runs.folder import find_run

    folders = [find_run(name) for name in options.runs]
    if options.json:
        print(json.dumps(finite(compare(folders)), default=str, indent=2))
        return DONE
    check_count(folders)
    states = [folder.read_state() for folder in folders]
    for line in comparison(folders, differences(folders, states), figures(states)):
        print(line)
    return DONE


def comparison(
    folders: Sequence["RunFolder"], differing: Sequence["Difference"], found: Sequence["Figure"]
) -> list[str]:
    """The comparison as lines of a table, safe to print; * stands beside the best figure."""
    width = max(12, 88 // len(folders))
    lines = [_row("", [safe(folder.id) for folder in folders], width)]
    for figure in found:
        if any(value is not None for value in figure.values):
            cells = [
                _figure(value, figure.unit) + (" *" if figure.best == index else "")
                for index, value in enumerate(figure.values)
            ]
            lines.append(_row(figure.name, cells, width))
    section = ""
    for one in differing:
        if one.section != section:
            section = one.section
            lines += ["", f"{section} that differ" if section == "settings" else f"{section} that differs"]
        lines.append(_row(one.name, ["–" if value is None else safe(str(value)) for value in one.values], width))
    if not differing:
        lines += ["", "settings, data and environment are the same"]
    return lines


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return f"{safe(name):28}" + "  ".join(f"{shorten(cell, width):{width}}" for cell in cells).rstrip()


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "bytes":
        return human_bytes(value)
    if unit == "seconds":
        return human_duration(value)
    if unit == "count":
        return human_count(value)
    return f"{value:.1%}" if unit == "share" else f"{value:.4g}"


def _metrics(options: argparse.Namespace) -> int:
    from core.runs.folder import find_run
    from core.runs.history import written

    folder = find_run(options.run)
    kind = "json" if options.json or str(options.output or "").endswith(".json") else "csv"
    pieces = written(folder, kind)
    if options.output is None:
        sys.stdout.writelines(pieces)
        return DONE
    file = Path(options.output).expanduser()
    try:
        with file.open("w", encoding="utf-8") as target:
            target.writelines(pieces)
    except OSError as error:
        raise SftuiError("The file cannot be written", f"{file}: {error.strerror}.") from error
    return DONE


def _tag(options: argparse.Namespace) -> int:
    from core.runs.folder import find_run
    from core.runs.tags import parse_tags, read_tags, write_tags

    folder = find_run(options.run)
    if options.tags or options.none:
        write_tags(folder, parse_tags(" ".join(options.tags)))
    tags = read_tags(folder)
    print(json.dumps(list(tags)) if options.json else safe(" ".join(tags)))
    return DONE


def _delete(options: argparse.Namespace) -> int:
    from core.runs.delete import delete_run, size_of
    from core.runs.folder import find_run

    folder = find_run(options.run)
    freed = size_of(folder)
    told: dict[str, Any] = {"id": folder.id, "path": str(folder.path), "bytes": freed.total, "deleted": options.yes}
    if options.yes:
        told["bytes"] = delete_run(folder)
    if options.json:
        print(json.dumps(told))
    elif options.yes:
        print(f"{safe(folder.id)} is gone: {human_bytes(told['bytes'])} are free")
    else:
        print(f"{safe(folder.id)} {freed.words()}; say --yes to delete it")
    return DONE
