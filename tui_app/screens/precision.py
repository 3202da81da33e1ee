"""Step 3: how the model is stored and computed, which weights are trained, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Label, Static

from core.models.attention import attention_choices
from core.spec.build import value_of
from core.spec.presets import PRESETS
from core.spec.problems import Problem
from core.spec.run_spec import options
from core.text import human_bytes, shorten
from tui_app.fitting import FittingScreen
from tui_app.prices import QUANTIZATIONS, WeightSizes, switch_price
from tui_app.setup_screen import InfoPane
from tui_app.widgets.attention_row import AttentionRow
from tui_app.widgets.editors import ChoiceEditor
from tui_app.widgets.path_row import PathSuggester
from tui_app.widgets.plan_panel import PlanPanel
from tui_app.widgets.spec_form import FormRow, OptionRow, SpecForm, row_id

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.memory.plan import Plan
    from tui_app.draft import Draft

_ALWAYS_PRICED = ("use_bnb_nested_quant", "use_peft")
_ADAPTER_OPTIONS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
_MORE_ADAPTER_OPTIONS = (
    "use_rslora",
    "use_dora",
    "sftui.init_lora_weights",
    "lora_modules_to_save",
    "lora_target_parameters",
)
_START = "sftui.start_from_adapter"
_DECIDED = "The adapter to start from decides this."


class QuantizationRow(FormRow):
    """Three options of TRL as the one choice that they are."""

    def __init__(self) -> None:
        labels = {key: label for key, (label, _) in QUANTIZATIONS.items()}
        super().__init__("Quantization", ChoiceEditor(labels), stacked=True, id=row_id("quantization"))
        self.help = "load_in_4bit, load_in_8bit: how the base model's weights are stored while adapters are trained."

    def concerns(self, field: str) -> bool:
        """Whether a problem is about one of the three."""
        return field in ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type")

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show what the three make together."""
        chosen = "int8" if value_of(values, "load_in_8bit") is True else "none"
        if value_of(values, "load_in_4bit") is True:
            chosen = str(value_of(values, "bnb_4bit_quant_type"))
        assert isinstance(self.editor, ChoiceEditor)
        self.editor.show(chosen)
        self.tell(problems, note)

    def on_choice_editor_changed(self, event: ChoiceEditor.Changed) -> None:
        """Set the three."""
        event.stop()
        self.post_message(self.Edited(QUANTIZATIONS[event.value][1]))


class DeviceRow(FormRow):
    """The device among those that are there."""

    def __init__(self) -> None:
        editor = ChoiceEditor({"auto": "auto", "cpu": "CPU"})
        super().__init__("Device", editor, stacked=True, id=row_id("sftui.device"))
        self.help = "sftui.device: where the run happens; auto takes the GPU with the most free memory."
        self.devices: dict[str, str] = {}

    def concerns(self, field: str) -> bool:
        """Whether a problem is about the device or its memory."""
        return field in ("sftui.device", "device", "memory")

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show the devices and the chosen one, also one that is not there."""
        chosen = str(value_of(values, "sftui.device"))
        labels = {"auto": "auto", "cpu": "CPU"} | self.devices
        if chosen not in labels:
            labels[chosen] = shorten(chosen, 20)
        assert isinstance(self.editor, ChoiceEditor)
        self.editor.show(chosen, labels)
        self.tell(problems, note)

    def on_choice_editor_changed(self, event: ChoiceEditor.Changed) -> None:
        """Set the device."""
        event.stop()
        self.post_message(self.Edited({"sftui.device": event.value}))


class PrecisionScreen(FittingScreen):
    """How shall the model be stored, and which weights be trained?"""

    CSS_PATH = "precision.tcss"
    STEP = "precision"
    ALWAYS_PRICED = frozenset(map(row_id, _ALWAYS_PRICED))
    HELP = """Choose how the base model is stored and computed, and which weights are trained.
    ↑ and ↓ move between options, ← and → between choices, space turns a switch. The memory bar follows every key,
    and the option one is on tells what other values of it would cost. f shows what would make the run fit, or faster
    where memory is left over; in a field, where f is a letter, F5 does.
    F2, F3 and F4 set all options of a preset; model, data and what is set on other pages of the run stay,
    but for learning rate, schedule, batch and length, which belong to the preset."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "preset('qlora')", "QLoRA", tooltip=PRESETS["qlora"].help),
        Binding("f3", "preset('lora')", "LoRA", tooltip=PRESETS["lora"].help),
        Binding("f4", "preset('full')", "Full", tooltip=PRESETS["full"].help),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._sizes = WeightSizes({label: {"use_peft": True, **changes} for label, changes in QUANTIZATIONS.values()})

    def compose_step(self) -> ComposeResult:
        """Options on the left, their cost on the right; one above the other where it is narrow."""
        with VerticalScroll(classes="panes", can_focus=False):
            with VerticalScroll(classes="pane first", can_focus=False):
                yield Label("", id="method", classes="question", markup=False)
                yield Static("", id="trained", markup=False)
                yield SpecForm(
                    [
                        "#Base model",
                        QuantizationRow(),
                        "use_bnb_nested_quant",
                        "dtype",
                        AttentionRow(),
                        DeviceRow(),
                        "#Adapters",
                        "use_peft",
                        *_ADAPTER_OPTIONS,
                        "#More of adapters",
                        _start_row(),
                        *_MORE_ADAPTER_OPTIONS,
                        "sftui.train_vision",
                        "#More of precision",
                        "sftui.skip_modules",
                        "bnb_4bit_quant_storage",
                        "sftui.allow_hub_kernels",
                    ]
                )
            with InfoPane(classes="pane second cost"):
                yield Label("What it costs", classes="question", markup=False)
                yield PlanPanel()

    def show_draft(self, draft: Draft) -> None:
        """Show the options with their reasons and prices, and the parts of the memory."""
        values = draft.values
        notes = self.reasons(draft)
        notes["quantization"] = _in_words(self._sizes.of(draft))
        notes |= {name: switch_price(draft, name) for name in _ALWAYS_PRICED}
        decided = [*_ADAPTER_OPTIONS, *_MORE_ADAPTER_OPTIONS] if value_of(values, _START) is not None else []
        notes |= {name: notes.get(name) or _DECIDED for name in decided}
        allowed = value_of(values, "sftui.allow_hub_kernels")
        self.query_one(AttentionRow).kernels = attention_choices(
            draft.chosen_gpu,
            draft.model.architecture if draft.model else None,
            [str(kernel) for kernel in allowed] if isinstance(allowed, list | tuple) else [],
        )
        self.query_one(DeviceRow).devices = {
            str(gpu.index): f"GPU {gpu.index} {gpu.name}" for gpu in (draft.gpus.gpus if draft.gpus else ())
        }
        self.query_one(SpecForm).show(values, draft.problems_of("precision"), notes, hidden=_hidden(draft))
        self.query_one(PlanPanel).show_plan(draft.plan)
        self.query_one("#method", Label).update(f"Method: {_method(draft)}")
        self.query_one("#trained", Static).update(_trained(draft.plan))

    def action_preset(self, name: str) -> None:
        """Set all options of a preset; model, data and the run's own names stay."""
        preset = PRESETS[name]
        self.change(dict(preset.values))
        # A toast would cover the memory bar just when it moves.
        self.query_one("#help-line", Static).update(f"Preset {preset.title}: {preset.help}")


def _start_row() -> OptionRow:
    row = OptionRow(options()[_START])
    assert isinstance(row.editor, Input)
    row.editor.suggester = PathSuggester()
    return row


def _hidden(draft: Draft) -> list[str]:
    """The options that would do nothing."""
    values = draft.values
    four_bit = value_of(values, "load_in_4bit") is True
    hidden: list[str] = [] if four_bit else ["use_bnb_nested_quant", "bnb_4bit_quant_storage"]
    if not four_bit and value_of(values, "load_in_8bit") is not True:
        hidden.append("sftui.skip_modules")
    if value_of(values, "use_peft") is not True:
        hidden += [*_ADAPTER_OPTIONS, *_MORE_ADAPTER_OPTIONS, _START]
    if draft.model is None or not draft.model.architecture.vision:
        hidden.append("sftui.train_vision")
    return hidden


def _trained(plan: Plan | None) -> str:
    memory = plan.memory if plan else None
    if memory is None:
        return ""
    source = "exact" if memory.exact else "as its files tell"
    total = f"of {memory.total_parameters:,} parameters"
    if memory.trainable_parameters is None:
        return f"Trains some {total} ({source}): how many is known when its modules are"
    share = 100 * memory.trainable_parameters / memory.total_parameters if memory.total_parameters else 0
    return f"Trains {memory.trainable_parameters:,} {total} ({source}), {share:.3g} %"


def _method(draft: Draft) -> str:
    if draft.spec is not None:
        return PRESETS[draft.spec.method].title
    if value_of(draft.values, "use_peft") is not True:
        return PRESETS["full"].title
    quantized = value_of(draft.values, "load_in_4bit") is True or value_of(draft.values, "load_in_8bit") is True
    return PRESETS["qlora" if quantized else "lora"].title


def _in_words(sizes: list[tuple[str, int | None]]) -> str:
    known = [f"{label} {human_bytes(size)}" for label, size in sizes if size is not None]
    return f"Base model: {', '.join(known)}." if known else ""
