"""What a model is, why it is loaded as it is, and what its weights take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from core.text import human_bytes, human_count, safe

if TYPE_CHECKING:
    from core.errors import SftuiError
    from core.memory.plan import ModelFacts

_TITLE_WIDTH = 16


class ModelCard(Static):
    """The facts of one model, or why there are none."""

    DEFAULT_CSS = """
    ModelCard { height: auto; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(markup=False, id=id)
        self._lines: list[tuple[str, Content]] = []

    def show(
        self,
        facts: ModelFacts | None,
        problem: SftuiError | None,
        *,
        waiting: bool,
        sizes: Sequence[tuple[str, int | None]] = (),
        device_bytes: int | None = None,
    ) -> None:
        """Show facts, a problem, or what to do; `sizes` are the weights' bytes by precision."""
        if problem is not None:
            self._lines = [
                ("", Content.styled(f"✗ {safe(problem.title)}", "bold $error")),
                ("", Content(safe(problem.message))),
                ("", Content.styled(safe(problem.hint), "$secondary")),
            ]
        elif facts is None:
            choose = "Type a path, or choose a model from the list with ↑ ↓ and Enter."
            words = "Reading the model …" if waiting else choose
            self._lines = [("", Content.styled(words, "$secondary"))]
        else:
            self._lines = [*_facts(facts), *_sizes(sizes, device_bytes), *_problems(facts)]
        self._draw()

    def on_resize(self) -> None:
        """Values wrap within their column."""
        self._draw()

    def _draw(self) -> None:
        width = max(20, self.content_size.width - _TITLE_WIDTH)
        lines: list[Content] = []
        for title, value in self._lines:
            if not title:
                lines.append(value)
                continue
            for number, line in enumerate(value.wrap(width)):
                head = title if number == 0 else ""
                lines.append(Content.assemble((f"{head:<{_TITLE_WIDTH}}", "$secondary"), line))
        self.update(Content("\n").join(lines))


def _facts(facts: ModelFacts) -> list[tuple[str, Content]]:
    it = facts.architecture
    shape = [
        f"{count:,} {word}"
        for count, word in ((it.layers, "layers"), (it.heads, "heads"), (it.kv_heads, "key/value heads"))
        if count is not None
    ]
    if it.hidden_size is not None:
        shape.insert(1, f"hidden {it.hidden_size:,}")
    rows = [
        ("Type", f"{it.model_type}, reads images too" if it.vision else it.model_type),
        ("Loaded by", it.auto_class),
        ("because", it.reason),
        ("Parameters", human_count(it.parameters)),
        ("Shape", ", ".join(shape)),
        ("Vocabulary", _tokens(it.vocab_size, ", tied with the head" if it.tied_embeddings else "")),
        ("Context", _tokens(it.context_length, f", window {it.sliding_window:,}" if it.sliding_window else "")),
        ("Stored as", " ".join(filter(None, (it.stored_dtype, it.stored_quantization))) or "n/a"),
        ("Chat template", "yes" if it.chat_template else "no: its tokenizer cannot format conversations"),
        ("Folder", str(facts.folder)),
    ]
    if it.experts:
        rows.insert(5, ("Experts", f"{it.experts}, {it.active_experts or 'n/a'} active for a token"))
    return [(title, Content(safe(value))) for title, value in rows if value]


def _tokens(count: int | None, rest: str) -> str:
    return f"{count:,} tokens{rest}" if count is not None else "n/a"


def _sizes(sizes: Sequence[tuple[str, int | None]], device_bytes: int | None) -> list[tuple[str, Content]]:
    lines: list[tuple[str, Content]] = []
    for label, size in sizes:
        share = f"{size / device_bytes:7.1%} of the device" if size is not None and device_bytes else ""
        words = f"{human_bytes(size):>8}  {share}" if size is not None else "n/a"
        lines.append((f"in {label}", Content(words)))
    return [("", Content("")), ("", Content.styled("Weights on the device", "bold $accent")), *lines] if lines else []


def _problems(facts: ModelFacts) -> list[tuple[str, Content]]:
    return [("", Content.styled(f"! {safe(problem)}", "$warning")) for problem in facts.architecture.problems]
