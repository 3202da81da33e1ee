"""What a model is, why it is loaded as it is, and what its weights take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from core.text import human_bytes, human_count, safe
from tui_app.widgets.fact_list import BLANK, Fact, FactList, heading

if TYPE_CHECKING:
    from core.errors import SftuiError
    from core.memory.plan import ModelFacts


class ModelCard(FactList):
    """The facts of one model, or why there are none."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(16, id=id)

    def show_model(
        self,
        facts: ModelFacts | None,
        problem: SftuiError | None,
        *,
        waiting: bool,
        sizes: Sequence[tuple[str, int | None]] = (),
        device_bytes: int | None = None,
        license_name: str = "",
    ) -> None:
        """Show facts, a problem, or what to do; `sizes` are the weights' bytes by precision."""
        if problem is not None:
            self.show(
                [
                    Fact("", Content.styled(f"✗ {safe(problem.title)}", "bold $error")),
                    Fact("", problem.message),
                    Fact("", Content.styled(safe(problem.hint), "$secondary")),
                ]
            )
        elif facts is None:
            choose = "Type a path, or choose a model from the list with ↑ ↓ and Enter."
            self.show([Fact("", Content.styled("Reading the model …" if waiting else choose, "$secondary"))])
        else:
            self.show([*_problems(facts), *_facts(facts, license_name), *_sizes(sizes, device_bytes)])


def _facts(facts: ModelFacts, license_name: str) -> list[Fact]:
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
        ("Licence", license_name),
        ("Folder", str(facts.folder)),
    ]
    if it.experts:
        rows.insert(5, ("Experts", f"{it.experts}, {it.active_experts or 'n/a'} active for a token"))
    return [Fact(title, value) for title, value in rows if value]


def _tokens(count: int | None, rest: str) -> str:
    return f"{count:,} tokens{rest}" if count is not None else "n/a"


def _sizes(sizes: Sequence[tuple[str, int | None]], device_bytes: int | None) -> list[Fact]:
    facts = []
    for label, size in sizes:
        share = f"{100 * size / device_bytes:.1f} % of the device" if size is not None and device_bytes else ""
        facts.append(Fact(label, f"{human_bytes(size):>8}", share))
    return [BLANK, heading("Weights on the device"), *facts] if facts else []


def _problems(facts: ModelFacts) -> list[Fact]:
    return [Fact("", Content.styled(f"! {safe(problem)}", "$warning")) for problem in facts.architecture.problems]
