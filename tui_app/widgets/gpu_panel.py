"""What the machine holds and does: every GPU, or why there is none, and the host."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from core.text import human_bytes, safe, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.devices.gpu import GpuReading, GpuSnapshot
    from core.devices.host import HostSnapshot
    from core.runs.events import GpuUse
    from core.runs.state import MemorySample

_LEVELS = "▁▂▃▄▅▆▇█"
_MOST_PROCESSES = 3


class GpuPanel(Static):
    """GPUs and host as words, bars and, for a run, memory over time."""

    DEFAULT_CSS = """
    GpuPanel { border: round $border-blurred; border-title-color: $foreground; padding: 0 1; height: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self.border_title = "Machine"
        self._lines: list[Content] = []
        self._again: Callable[[], None] | None = None

    def on_resize(self) -> None:
        """Draw the bars as long as there is room."""
        if self._again is not None:
            self._again()

    def show_machine(self, gpus: GpuReading, host: HostSnapshot) -> None:
        """Show a reading of this machine."""
        self._again = partial(self.show_machine, gpus, host)
        lines: list[Content] = []
        for gpu in gpus.gpus:
            lines += [*self._gpu(gpu), Content("")]
        if not gpus.gpus:
            lines += [Content("No NVIDIA GPU"), _quiet(_sentence(safe(gpus.problem or ""))), Content("")]
        lines += [
            Content(shorten(safe(host.cpu_name), self._room)),
            _row("CPU", f"{host.cpu_percent:.0f} % of {host.cpu_count}"),
            *self._bar("Memory", host.memory_used_bytes, host.memory_total_bytes),
            _row("Disk", f"{human_bytes(host.disk_free_bytes)} free"),
        ]
        self._show(lines)

    def show_run(self, samples: Sequence[MemorySample]) -> None:
        """Show what a run holds, from its own samples."""
        self._again = partial(self.show_run, samples)
        if not samples:
            self._show([_quiet("Not measured yet.")])
            return
        use = samples[-1].use
        lines: list[Content] = []
        for gpu in use.gpus:
            past = [_of_gpu(sample, gpu.index) for sample in samples[-self._room * 4 :]]
            lines += [*self._used(gpu, [value for value in past if value is not None]), Content("")]
        if not use.gpus:
            held = [sample.use.process_bytes for sample in samples]
            lines += [
                Content("No NVIDIA GPU: runs on the CPU"),
                _row("This run", f"{human_bytes(use.process_bytes)}, peak {human_bytes(max(held))}"),
                Content.styled(sparkline(held, self._room), "$primary"),
            ]
        else:
            lines.append(_row("This run", f"{human_bytes(use.process_bytes)} of host memory"))
        lines += [
            _row("CPU", f"{use.cpu_percent:.0f} %"),
            *self._bar("Host", use.host_used_bytes, use.host_total_bytes),
        ]
        self._show(lines)

    @property
    def _room(self) -> int:
        return max(12, self.content_size.width or 30)

    def _show(self, lines: list[Content]) -> None:
        if lines != self._lines:
            same_height = len(lines) == len(self._lines)
            self._lines = lines
            self.update(Content("\n").join(lines), layout=not same_height)

    def _gpu(self, gpu: GpuSnapshot) -> list[Content]:
        title = Content.styled(shorten(f"GPU {gpu.index}  {safe(gpu.name)}", self._room), "bold")
        if gpu.lost:
            return [title, Content.styled("has fallen off the bus: it needs a reset", "$error")]
        lines = [title, *self._bar("Memory", gpu.used_bytes, gpu.total_bytes)]
        lines.append(_load(gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts))
        if gpu.processes is None:
            lines.append(_quiet("who uses it: n/a"))
        for process in (gpu.processes or ())[:_MOST_PROCESSES]:
            who = safe(process.command or f"pid {process.pid}") + (f", {safe(process.user)}" if process.user else "")
            lines.append(_quiet(shorten(f"{human_bytes(process.used_bytes)}  {who}", self._room)))
        return lines

    def _used(self, gpu: GpuUse, past: list[int]) -> list[Content]:
        lines = [
            Content.styled(shorten(f"GPU {gpu.index}  {safe(gpu.name)}", self._room), "bold"),
            *self._bar("Memory", gpu.used_bytes, gpu.total_bytes),
            _row("This run", f"{human_bytes(gpu.own_bytes)}, peak {human_bytes(max(past, default=None))}"),
        ]
        if past:
            lines.append(Content.styled(sparkline(past, self._room, top=gpu.total_bytes), "$primary"))
        lines.append(_load(gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts))
        return lines

    def _bar(self, name: str, used: int | None, total: int | None) -> list[Content]:
        if used is None or not total:
            return [_row(name, "n/a")]
        share = min(1.0, used / total)
        filled = round(share * (self._room - 6))
        return [
            _row(name, f"{human_bytes(used)} of {human_bytes(total)}"),
            Content.assemble(
                ("█" * filled, "$primary"),
                ("░" * (self._room - 6 - filled), "$panel-lighten-2"),
                f" {share:>4.0%}".replace("%", " %"),
            ),
        ]


def _of_gpu(sample: MemorySample, index: int) -> int | None:
    for gpu in sample.use.gpus:
        if gpu.index == index:
            return gpu.own_bytes if gpu.own_bytes is not None else gpu.used_bytes
    return None


def _row(name: str, value: str) -> Content:
    return Content.assemble((f"{name:<9}", "$secondary"), value)


def _quiet(text: str) -> Content:
    return Content.styled(text, "$secondary")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _load(percent: int | None, celsius: int | None, watts: float | None) -> Content:
    words = [
        "n/a" if percent is None else f"{percent} %",
        "" if celsius is None else f"{celsius} °C",
        "" if watts is None else f"{watts:.0f} W",
    ]
    return _row("Load", "   ".join(word for word in words if word))


def sparkline(values: Sequence[float], width: int, *, top: float | None = None) -> str:
    """The values as bars of an eighth of a line, the latest at the right; each bar is the highest of its share."""
    if not values or width <= 0:
        return ""
    ceiling = top or max(values) or 1
    count = min(width, len(values))
    bars = []
    for bar in range(count):
        start, end = bar * len(values) // count, (bar + 1) * len(values) // count
        share = max(values[start:end]) / ceiling
        bars.append(_LEVELS[min(7, max(0, round(share * 7)))])
    return "".join(bars)
