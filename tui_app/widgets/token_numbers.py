"""What all rows together are in tokens: lengths, what is learnt, what is cut, and what an epoch takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from core.text import human_count, safe
from tui_app.widgets.fact_list import Fact, FactList
from tui_app.widgets.length_histogram import LengthBin, LengthHistogram

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.data.token_statistics import TokenStatistics


class TokenNumbers(VerticalScroll, can_focus=True):
    """Figures, and a line on how they came about."""

    DEFAULT_CSS = """
    TokenNumbers { height: auto; padding: 0 1; border-left: blank; }
    TokenNumbers:focus { border-left: outer $accent; }
    TokenNumbers > Static { height: auto; }
    TokenNumbers FactList { padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    def compose(self) -> ComposeResult:
        """State, chart, figures."""
        yield Static(id="counting", markup=False)
        yield LengthHistogram()
        yield FactList(11, id="figures")

    def show(
        self, state: Content, found: TokenStatistics | None, max_length: int | None, *, packing: bool, time: str = ""
    ) -> None:
        """Show figures, if there are any, how complete they are, and how long the training takes."""
        self.query_one("#counting", Static).update(state)
        chart, figures = self.query_one(LengthHistogram), self.query_one(FactList)
        figures.display = found is not None
        chart.display = found is not None and found.longest_length > 0
        if found is not None:
            chart.show([LengthBin(*each) for each in found.bins], max_length)
            figures.show([*facts_of(found, max_length, packing=packing), *([Fact("Training", time)] if time else [])])


def facts_of(found: TokenStatistics, max_length: int | None, *, packing: bool) -> list[Fact]:
    """The figures in words."""
    share = found.trained / max(1, found.total)
    padded, packed = percent(found.padded_efficiency), percent(found.packed_efficiency)
    limit = "without a limit" if max_length is None else f"at {max_length:,}"
    dropped = f"{percent(found.dropped_share)} dropped: nothing to learn" if found.dropped else "none dropped"
    used = Content.assemble(
        ("padded ", "" if packing else "bold"), (padded, "" if packing else "bold"),
        ", ", ("packed ", "bold" if packing else ""), (packed, "bold" if packing else ""),
    )  # fmt: skip
    refused: list[Fact] = []
    if found.refused:
        count = "1 row" if found.refused_rows == 1 else f"{found.refused_rows:,} rows"
        first = found.refused[0]
        words = f"✗ {count}, the first is row {first.index + 1:,}: {first.message}"
        refused = [Fact("Refused", Content.styled(safe(words), "bold $error"))]
    if not found.longest_length:
        return refused
    return [
        *refused,
        Fact("Lengths", f"p50 {found.p50:,}  p95 {found.p95:,}  max {found.longest_length:,}"),
        Fact("Tokens", f"{human_count(found.total)}, {human_count(found.trained)} trained ({percent(share)})"),
        Fact(
            "Cut",
            _style(f"{percent(found.truncated_share) if found.truncated else 'none'} {limit}", found.truncated),
            _key(found.truncated, "c"),
        ),
        Fact("", Content(" " * 11) + _style(dropped, found.dropped), _key(found.dropped, "e")),
        Fact("Filled", used, "packing wastes less" if _packing_pays(found) and not packing else ""),
        Fact("An epoch", f"{found.steps_per_epoch:,} steps, {human_count(found.tokens_per_epoch)} tokens"),
    ]


def percent(share: float | None) -> str:
    """A share as per cent; small ones are not rounded to nothing."""
    if share is None:
        return "n/a"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def _style(words: str, count: float) -> Content:
    return Content.styled(words, "$warning" if count else "")


def _key(count: int, key: str) -> str:
    return f"({key} shows them)" if count else ""


def _packing_pays(found: TokenStatistics) -> bool:
    return found.packed_efficiency is not None and found.packed_efficiency > found.padded_efficiency + 0.1
