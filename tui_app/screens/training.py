"""Step 4: how it learns, for how long, and what is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from textual.containers import VerticalScroll

from core.spec.build import value_of
from core.text import human_count
from tui_app.fitting import FittingScreen
from tui_app.prices import switch_price
from tui_app.widgets.spec_form import SpecForm, row_id

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui_app.draft import Draft


class TrainingScreen(FittingScreen):
    """How shall it learn, and for how long?"""

    CSS_PATH = "training.tcss"
    STEP = "training"
    ALWAYS_PRICED = frozenset({row_id("activation_checkpointing")})
    HELP = """Choose how it learns and for how long, when it is checked, and what is kept.
    ↑ and ↓ move between options, ← and → between choices, space turns a switch.
    An emptied field falls back to its default, which it then shows in grey.
    f, or F5 in a field, shows what would make the run fit, or faster where memory is left over."""

    def compose_step(self) -> ComposeResult:
        """Two columns of options; one above the other where it is narrow."""
        with VerticalScroll(classes="panes", can_focus=False):
            with VerticalScroll(classes="pane", can_focus=False):
                yield SpecForm(
                    [
                        "#Learning",
                        "learning_rate",
                        "per_device_train_batch_size",
                        "gradient_accumulation_steps",
                        "num_train_epochs",
                        "max_steps",
                        "lr_scheduler_type",
                        "warmup_steps",
                        "optim",
                        "weight_decay",
                        "max_grad_norm",
                        "activation_checkpointing",
                    ],
                    id="learning",
                )
            with VerticalScroll(classes="pane", can_focus=False):
                yield SpecForm(
                    [
                        "#Checking and keeping",
                        "eval_strategy",
                        "eval_steps",
                        "save_strategy",
                        "save_steps",
                        "save_total_limit",
                        "#The run",
                        "sftui.name",
                        "sftui.sample_prompts",
                        "sftui.sample_rows",
                        "sftui.sample_every",
                        "sftui.notes",
                        "sftui.report_to",
                        "seed",
                        "sftui.probe",
                        "#If something goes wrong, and at the end",
                        "sftui.on_not_finite",
                        "sftui.on_trouble",
                        "sftui.on_finish",
                    ],
                    id="keeping",
                )

    def show_draft(self, draft: Draft) -> None:
        """Show the options with what follows from them."""
        values = draft.values
        problems = draft.problems_of("training")
        notes = self.reasons(draft)
        batch = effective_batch(draft)
        if batch is not None:
            notes["gradient_accumulation_steps"] = f"Effective batch: {batch} rows a step."
        notes["num_train_epochs"] = _length(draft, batch)
        notes["activation_checkpointing"] = switch_price(draft, "activation_checkpointing")
        hidden = [] if value_of(values, "eval_strategy") == "steps" else ["eval_steps"]
        if value_of(values, "save_strategy") != "steps":
            hidden.append("save_steps")
        if value_of(values, "save_strategy") == "no":
            hidden.append("save_total_limit")
        for form in self.query(SpecForm):
            form.show(values, problems, notes, hidden=hidden)


def effective_batch(draft: Draft) -> int | None:
    """Rows in one optimizer step; None while one of the factors is no number."""
    batch = _number(draft, "per_device_train_batch_size")
    accumulation = _number(draft, "gradient_accumulation_steps")
    return int(batch * accumulation) if batch and accumulation else None


def training_rows(draft: Draft) -> int | None:
    """Rows that are trained on, without the share that is held out."""
    if draft.data is None:
        return None
    share = value_of(draft.values, "test_split_size")
    held_out = math.ceil(draft.data.rows * share) if isinstance(share, float) and 0 < share < 1 else 0
    return draft.data.rows - held_out


def _length(draft: Draft, batch: int | None) -> str:
    rows, epochs = training_rows(draft), _number(draft, "num_train_epochs")
    most = _number(draft, "max_steps")
    if rows is None or batch is None or epochs is None:
        return ""
    if value_of(draft.values, "packing") is True:
        return f"At most {human_count(rows)} rows an epoch; packing makes fewer steps of them."
    each = math.ceil(rows / batch)
    total = int(most) if most and most > 0 else math.ceil(each * epochs)
    return f"{human_count(rows)} rows make {each:,} steps an epoch; {total:,} steps in all."


def _number(draft: Draft, name: str) -> float | None:
    value: Any = value_of(draft.values, name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
