"""What a run's data came to, in lines for people."""

from core.data.rows import KIND_TITLES
from core.runs.events import DataPrepared
from core.text import safe


def data_lines(data: DataPrepared) -> list[str]:
    """How much there is to train on; empty for journals that do not tell."""
    if data.tokens is None or data.trained_tokens is None:
        return []
    packed = data.sequences is not None and data.sequences != data.train_rows
    into = f" in {data.sequences:,} sequences" if packed else ""
    return [f"{data.tokens:,} tokens{into}, {data.trained_tokens:,} of them trained"]


def left_out_lines(data: DataPrepared) -> list[str]:
    """What of the rows was left out or cut; empty where nothing was."""
    lines = []
    if data.skipped_rows:
        kinds = ", ".join(f"{one.rows:,} {_title(one.kind)}" for one in data.skipped_kinds)
        lines.append(f"{_rows(data.skipped_rows)} left out" + (f": {kinds}" if kinds else ""))
    if data.dropped_rows:
        lines.append(f"{_rows(data.dropped_rows)} left out: nothing to learn from within max_length")
    if data.truncated_rows:
        lines.append(f"{_rows(data.truncated_rows)} cut at max_length")
    return lines


def _title(kind: str) -> str:
    return next((title for name, title in KIND_TITLES.items() if name == kind), safe(kind.replace("_", " ")))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
