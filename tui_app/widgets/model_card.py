"""What a model is, why it is loaded as it is, and what its weights take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from core.models.remote_code import CodeNotAllowedError
from core.text import human_bytes, human_count, safe
from tui_app.widgets.fact_list import BLANK, Fact, FactList, heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.errors import SftuiError
    from core.memory.plan import ModelFacts, PlanDevice

_MOST_TARGETS = 12


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
        inside: int = 0,
        sizes: Sequence[tuple[str, int | None]] = (),
        device: PlanDevice | None = None,
    ) -> None:
        """Show facts, a problem, or what to do; `sizes` are the weights' bytes, `inside` the models in the folder."""
        if isinstance(problem, CodeNotAllowedError):
            self.show(_own_code(problem))
        elif problem is not None and inside:
            holds = "holds a model" if inside == 1 else f"holds {inside} models"
            self.show([Fact("", f"This folder {holds}: ↓ and Enter choose, and list it from then on.")])
        elif problem is not None:
            self.show(
                [
                    Fact("", Content.styled(f"✗ {safe(problem.title)}", "bold $error")),
                    Fact("", problem.message),
                    Fact("", Content.styled(safe(problem.hint), "$secondary")),
                ]
            )
        elif facts is None:
            choose = "Type a path, or choose a model from the list with ↑ ↓ and Enter. ctrl+f searches the hub."
            self.show([Fact("", Content.styled("Reading the model …" if waiting else choose, "$secondary"))])
        else:
            self.show([*_problems(facts), *_sizes(sizes, device), *_facts(facts)])


def _own_code(problem: CodeNotAllowedError) -> list[Fact]:
    remote = problem.remote
    facts = [
        Fact("", Content.styled(f"✗ {safe(problem.title)}", "bold $error")),
        Fact("", "Loading it would run these files, which may do anything on this machine."),
        Fact("Would run", ", ".join(remote.files)),
        Fact("of", remote.repository),
        Fact("at", remote.revision),
    ]
    if any(": " in name for name in remote.missing):
        never = "! Some of it lies in another repository, which cannot be allowed here: choose another version."
        return [*facts, Fact("", Content.styled(never, "$warning"))]
    if remote.missing:
        facts.append(Fact("", Content.styled(f"! Not here: {safe(', '.join(remote.missing))}", "$warning")))
    if remote.allowable:
        does = "  see them, and allow exactly them if you have read and trust them"
        if remote.missing:
            does = "  allow this revision's code, if you have read and trust it; only then it is fetched"
            facts.append(Fact("Read it at", remote.page))
        facts.append(Fact("", Content.assemble(("ctrl+o", "$accent bold"), does)))
    return facts


def _facts(facts: ModelFacts) -> list[Fact]:
    it = facts.architecture
    shape = [
        f"{count:,} {word}"
        for count, word in ((it.layers, "layers"), (it.heads, "heads"), (it.kv_heads, "key/value heads"))
        if count is not None
    ]
    if it.hidden_size is not None:
        shape.insert(1, f"hidden {it.hidden_size:,}")
    targets = [*it.lora_targets[:_MOST_TARGETS], *(["…"] if len(it.lora_targets) > _MOST_TARGETS else [])]
    rows = [
        ("Type", it.model_type, ""),
        ("Vision", _vision(facts), ""),
        ("Loaded by", it.auto_class, ""),
        ("because", it.reason, ""),
        ("Parameters", human_count(it.parameters), ""),
        ("Experts", f"{it.experts}, {it.active_experts or 'n/a'} active for a token" if it.experts else "", ""),
        ("Shape", ", ".join(shape), ""),
        ("Vocabulary", _tokens(it.vocab_size, ", tied with the head" if it.tied_embeddings else ""), ""),
        ("Context", _tokens(it.context_length, f", window {it.sliding_window:,}" if it.sliding_window else ""), ""),
        ("Stored as", " ".join(filter(None, (it.stored_dtype, it.stored_quantization))) or "n/a", ""),
        ("Chat template", "yes" if it.chat_template else "no: its tokenizer cannot format conversations", ""),
        ("LoRA adapts", ", ".join(targets), ""),
        ("License", it.license or _license_file(facts), ""),
        ("Own code", _allowed(facts), ""),
        ("Folder", str(facts.folder), ""),
    ]
    return [BLANK, *(Fact(title, value, note) for title, value, note in rows if value)]


def _vision(facts: ModelFacts) -> str | Content:
    it = facts.architecture
    if not it.alternatives:
        return "reads images too" if it.vision else ""
    with_it, other = ("with vision", "text only") if it.vision else ("text only", "with vision")
    return Content.assemble(f"{with_it}  ", ("v, ctrl+t", "$accent bold"), f" {other}")


def _license_file(facts: ModelFacts) -> str:
    return "see the file LICENSE" if (facts.folder / "LICENSE").is_file() else "the card names none"


def _allowed(facts: ModelFacts) -> str:
    remote = facts.architecture.remote_code
    return f"{', '.join(remote.files)}, allowed at {remote.revision}" if remote is not None else ""


def _tokens(count: int | None, rest: str) -> str:
    return f"{count:,} tokens{rest}" if count is not None else "n/a"


def _sizes(sizes: Sequence[tuple[str, int | None]], device: PlanDevice | None) -> list[Fact]:
    if not sizes:
        return []
    facts = [heading(f"Its weights on the device{_free(device)}")]
    for label, size in sizes:
        value, note = Content(f"{human_bytes(size):>8}"), ""
        if size is not None and device is not None and device.free_bytes is not None:
            left = device.free_bytes - size
            mark, words, style = ("✓", f"leaves {human_bytes(left)} to train in", "$success")
            if left <= 0:
                mark, words, style = ("✗", f"{human_bytes(-left)} more than is free", "$error")
            value = Content.assemble(value, (f"  {mark} ", style), words)
        facts.append(Fact(label, value, note))
    return facts


def _free(device: PlanDevice | None) -> str:
    return f", {human_bytes(device.free_bytes)} free" if device is not None and device.free_bytes is not None else ""


def _problems(facts: ModelFacts) -> list[Fact]:
    return [Fact("", Content.styled(f"! {safe(problem)}", "$warning")) for problem in facts.architecture.problems]
