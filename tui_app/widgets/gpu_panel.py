"""What the machine holds and does: every GPU, or why there is none, and the host."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from core.text import human_bytes, safe, shorten
from tui_app.charts.memory import MemoryHistory
from tui_app.partial import changed_parts, same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import RenderResult

    from core.devices.gpu import GpuReading, GpuSnapshot
    from core.devices.host import HostSnapshot
    from core.runs.events import GpuUse
    from core.runs.state import MemorySample
    from tui_app.charts.pyramid import Pyramid

_MOST_PROCESSES = 3
_CHART_HEIGHT = 7


class GpuPanel(Widget):
    """GPUs and host as words, bars and, for a run, memory over time."""

    DEFAULT_CSS = """
    GpuPanel { border: round $border-blurred; border-title-color: $foreground; padding: 0 1; height: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Machine"
        self._lines: list[Content] = []
        self._history = MemoryHistory()
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

    def show_run(
        self,
        samples: Sequence[MemorySample],
        predicted_bytes: int | None = None,
        now: GpuReading | None = None,
    ) -> None:
        """Show what a run holds, from its own samples, beside what was planned for it.

        `now` is a reading of this machine while the run lives: it tells who else is on the GPUs.
        """
        self._again = partial(self.show_run, samples, predicted_bytes, now)
        if not samples:
            self._show([_quiet("Not measured yet.")])
            return
        use = samples[-1].use
        if len(samples) < self._history.taken:
            self._history = MemoryHistory()
        self._history.take(samples)
        lines: list[Content] = []
        holds = any(gpu.own_bytes for gpu in use.gpus)
        for gpu in use.gpus:
            # Of GPUs that the run does not use, only how full and busy they are matters.
            mine = not holds or bool(gpu.own_bytes)
            lines += [*(self._used(gpu, predicted_bytes, now) if mine else self._other(gpu)), Content("")]
        if not use.gpus:
            peak = max(self._history.run.ys)
            lines += [
                Content("No NVIDIA GPU: runs on the CPU"),
                _row("This run", f"{human_bytes(use.process_bytes)}, peak {human_bytes(peak)}"),
                *self._over_time([self._history.run], None),
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
        before, self._lines = self._lines, lines
        room = self.content_size.width
        if len(before) != len(lines) or any(line.cell_length > room for line in (*before, *lines)):
            # Some take more than a line of the screen.
            if not same(before, lines):
                self.refresh(layout=True)
        elif parts := changed_parts(before, lines, room):
            self.refresh(*parts)

    def render(self) -> RenderResult:
        """Draw the lines."""
        return Content("\n").join(self._lines)

    def _gpu(self, gpu: GpuSnapshot) -> list[Content]:
        title = Content.styled(shorten(f"GPU {gpu.index}  {safe(gpu.name)}", self._room), "bold")
        if gpu.lost:
            return [title, Content.styled("has fallen off the bus: it needs a reset", "$error")]
        lines = [title, *self._bar("Memory", gpu.used_bytes, gpu.total_bytes)]
        lines.append(_load(gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts, gpu.power_limit_watts))
        lines += _clocks(gpu.clock_mhz, gpu.highest_clock_mhz, gpu.slowed_by or ())
        if gpu.divided:
            lines.append(_quiet(shorten("divided (MIG): its parts tell no load", self._room)))
        return [*lines, *self._processes(gpu)]

    def _processes(self, gpu: GpuSnapshot) -> list[Content]:
        if gpu.processes is None:
            return [_quiet("who uses it: n/a")]
        lines = []
        for process in gpu.processes[:_MOST_PROCESSES]:
            who = safe(process.command or f"pid {process.pid}") + (f", {safe(process.user)}" if process.user else "")
            lines.append(_quiet(shorten(f"{human_bytes(process.used_bytes)}  {who}", self._room)))
        more = len(gpu.processes) - _MOST_PROCESSES
        return [*lines, _quiet(f"and {more} more")] if more > 0 else lines

    def _used(self, gpu: GpuUse, planned: int | None, now: GpuReading | None) -> list[Content]:
        own, all_of_it = self._history.gpus[gpu.index]
        peak = max(own.ys if len(own) else all_of_it.ys)
        lines = [
            Content.styled(shorten(f"GPU {gpu.index}  {safe(gpu.name)}", self._room), "bold"),
            *self._bar("Memory", gpu.used_bytes, gpu.total_bytes),
            _row("This run", f"{human_bytes(gpu.own_bytes)}, peak {human_bytes(peak)}"),
        ]
        if gpu.own_bytes is not None:
            lines.append(_row("Others", human_bytes(max(0, gpu.used_bytes - gpu.own_bytes))))
        if planned is not None:
            lines.append(_row("Planned", f"{human_bytes(planned)} at its peak ⣀⣀"))
        lines += self._over_time([own, all_of_it] if len(own) else [all_of_it], planned)
        lines.append(_load(gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts, gpu.power_limit_watts))
        lines += _clocks(gpu.clock_mhz, gpu.highest_clock_mhz, gpu.slowed_by)
        here = next((one for one in now.gpus if one.index == gpu.index), None) if now is not None else None
        return [*lines, *self._processes(here)] if here is not None and not here.lost else lines

    def _other(self, gpu: GpuUse) -> list[Content]:
        return [
            Content.styled(shorten(f"GPU {gpu.index}  {safe(gpu.name)}", self._room), "bold"),
            *self._bar("Memory", gpu.used_bytes, gpu.total_bytes),
            _load(gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts, gpu.power_limit_watts),
        ]

    def _over_time(self, curves: Sequence[Pyramid], planned: int | None) -> list[Content]:
        """Memory since the run began: this run's, all of it, and the planned peak as a line."""
        if len(curves[0]) < 2:
            return []
        from tui_app.charts.curve import Curve
        from tui_app.charts.plot import Picture, draw

        drawn = [Curve.over(one) for one in curves]
        picture = Picture(drawn, unit="bytes", x_name="", x_unit="seconds", averages=False, level=planned)
        legend = [_quiet("o this run   x with the others")] if len(curves) > 1 else []
        return [*draw(picture, self._room, _CHART_HEIGHT), *legend]

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


def _row(name: str, value: str) -> Content:
    return Content.assemble((f"{name:<9}", "$secondary"), value)


def _quiet(text: str) -> Content:
    return Content.styled(text, "$secondary")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _load(percent: int | None, celsius: int | None, watts: float | None, limit: float | None = None) -> Content:
    words = [
        "n/a" if percent is None else f"{percent} %",
        "" if celsius is None else f"{celsius} °C",
        "" if watts is None else f"{watts:.0f} W" if limit is None else f"{watts:.0f} of {limit:.0f} W",
    ]
    return _row("Load", "  ".join(word for word in words if word))


def _clocks(now: int | None, highest: int | None, slowed_by: Sequence[str]) -> list[Content]:
    lines = []
    if now is not None:
        lines.append(_row("Clock", f"{now:,} MHz" if highest is None else f"{now:,} of {highest:,} MHz"))
    if slowed_by:
        lines.append(Content.styled(f"! held down by {safe(', '.join(slowed_by))}", "$warning"))
    return lines
