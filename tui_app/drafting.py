"""The app as far as the set-up goes: what the draft names is read, and what was read is taken over."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import work
from textual.app import App
from textual.reactive import var

from core.text import safe
from tui_app import messages, reading
from tui_app.background import in_thread
from tui_app.data_passes import READ_DELAY_SECONDS, DataPasses
from tui_app.machine import machine_line, same_memory
from tui_app.simulating import Simulated, Simulating
from tui_app.token_figures import TokenFigures
from tui_app.token_passes import TokenPasses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.data.facts import Progress
    from core.data.token_statistics import TokenStatistics
    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot
    from core.memory.plan import ModelFacts
    from core.runs.launch import WarmRunner
    from tui_app.draft import Draft
    from tui_app.token_passes import TokenState


class DraftingApp(App[int]):
    """Keeps the draft; the set-up screens post DraftChanged and watch `draft`."""

    draft: var[Draft | None] = var(None)
    """The run that is being set up; None until a set-up screen is first opened."""
    machine: var[str] = var("")
    """This host and its device in words."""
    devices_read: var[tuple[GpuReading, HostSnapshot] | None] = var(None)
    """GPUs and host as last read."""
    warm: var[WarmRunner | None] = var(None)
    """Who answers what needs torch and its kin; None while nobody can."""
    data_progress: var[Progress | None] = var(None)
    """How far the pass over the draft's rows is, while there is one."""
    tokens: var[TokenState | None] = var(None)
    """How many tokens the draft's rows have, as far as they are counted."""

    figures: var[TokenStatistics | None] = var(None)
    """What the counted tokens say about the draft's run."""

    def __init__(self, draft_values: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._draft_values = draft_values or {}
        self._planned_for: tuple[GpuReading, HostSnapshot] | None = None
        self.data_passes = DataPasses(self)
        self.token_passes = TokenPasses(self)
        self._figures = TokenFigures(self, self._take_figures)
        self._simulating = Simulating(self)

    def _ensure_draft(self) -> Draft:
        from tui_app.draft import Draft

        if self.draft is None:
            self._set_draft(Draft.of(self._draft_values))
        assert self.draft is not None
        return self.draft

    def _set_draft(self, draft: Draft) -> None:
        self._planned_for = self.devices_read
        self.draft = draft if self.devices_read is None else draft.with_devices(*self.devices_read)

    def watch_draft(self, draft: Draft | None) -> None:
        """Read what the draft names and nobody has read."""
        if draft is None:
            return
        if draft.needs_model:
            self._read_model(draft)
        if draft.needs_data:
            self.data_passes.check(draft.data_key)
        else:
            self.data_passes.give_up()
            self.data_progress = None
        self._count_tokens()
        self._simulating.follow(draft, self.warm)

    def watch_warm(self) -> None:
        """Ask who can answer now what nobody could answer before."""
        self._ask_for_inventory()
        self._count_tokens()
        self._simulating.follow(self.draft, self.warm)

    def on_simulated(self, message: Simulated) -> None:
        """Take over what a simulation told; the draft looks by itself whether it is about it."""
        if self.draft is not None:
            self.draft = self.draft.with_simulated(message)

    def _count_tokens(self) -> None:
        from tui_app.token_passes import TokenTask

        task = TokenTask.of(self.draft) if self.draft is not None else None
        if self.tokens is not None and self.tokens.task != task:
            self.tokens = None
        self.token_passes.follow(task, self.warm)
        self._work_out_figures()

    def _work_out_figures(self) -> None:
        self._figures.follow(self.tokens, self.draft.planned if self.draft is not None else None)

    def _take_figures(self) -> None:
        self.figures = self._figures.found
        if self.draft is not None:
            self.draft = self.draft.with_tokens(self.figures)

    @work(group="read-model", exclusive=True)
    async def _read_model(self, draft: Draft) -> None:
        await asyncio.sleep(READ_DELAY_SECONDS)
        self.post_message(await in_thread(partial(reading.read_model, draft)))

    def on_draft_changed(self, message: messages.DraftChanged) -> None:
        """Take over what was typed or chosen."""
        self.draft = self._ensure_draft().changed(message.changes)

    def on_model_read(self, message: messages.ModelRead) -> None:
        """Take over what was read, unless another model is named by now."""
        if self.draft is not None and message.key == self.draft.model_key:
            self.draft = self.draft.with_model(message.model, message.problem)
            self._ask_for_inventory()

    def _ask_for_inventory(self) -> None:
        model = self.draft.model if self.draft is not None else None
        if model is not None and model.wants_inventory and self.warm is not None:
            self._build_inventory(model, self.warm)
        elif model is not None and self.warm is not None and self.draft is not None and self.draft.plan is not None:
            on_gpu = self.draft.plan.device.kind == "gpu"
            if model.wants_traces(on_gpu=on_gpu):
                self._trace_layers(model, self.warm, on_gpu=on_gpu)

    @work(group="inventory", exclusive=True)
    async def _build_inventory(self, model: ModelFacts, warm: WarmRunner) -> None:
        built = await in_thread(partial(reading.build_inventory, model, warm))
        if built is not None:
            self.post_message(messages.ModelBuilt(model, built))

    @work(group="inventory", exclusive=True)
    async def _trace_layers(self, model: ModelFacts, warm: WarmRunner, *, on_gpu: bool) -> None:
        traced = await in_thread(partial(reading.trace_layers, model, warm, on_gpu=on_gpu))
        if traced is not None:
            self.post_message(messages.ModelBuilt(model, traced))

    def on_model_built(self, message: messages.ModelBuilt) -> None:
        """Take over what was built, unless the model was read again or is another one by now."""
        if self.draft is not None and self.draft.model is message.before:
            self.draft = self.draft.with_model(message.after)
            self._ask_for_inventory()

    def on_model_changed(self, message: messages.ModelChanged) -> None:
        """Read the model again if it is the draft's."""
        if self.draft is not None and message.name == self.draft.model_key[0]:
            self.draft = self.draft.with_model(None)
            # What is being read already may have been read before the change.
            self._read_model(self.draft)

    def on_data_moved(self, message: messages.DataMoved) -> None:
        """Show how far the pass is."""
        if self.draft is not None and message.key == self.draft.data_key and self.draft.needs_data:
            self.data_progress = message.progress

    def on_tokens_counted(self, message: messages.TokensCounted) -> None:
        """Show how far the counting is, unless other tokens are wanted by now."""
        from tui_app.token_passes import TokenTask

        if self.draft is not None and message.state.task == TokenTask.of(self.draft):
            self.tokens = message.state
            self._work_out_figures()

    def read_data_again(self) -> None:
        """Have the rows read anew."""
        if self.draft is not None:
            self.draft = self.draft.with_data(None)

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The warm runner's answer. Raises SftuiError; NoAnswerError where nobody can answer now."""
        from core.runs.launch import NoAnswerError

        if self.warm is None:
            raise NoAnswerError("Nobody can answer now", "There is no warm runner.", "Try again.")
        return await in_thread(partial(self.warm.ask, question))

    def on_data_read(self, message: messages.DataRead) -> None:
        """Take over what was read, unless other files are named by now."""
        if self.draft is not None and message.key == self.draft.data_key:
            self.draft = self.draft.with_data(message.data, message.problem)
            self._drop_unused_columns()

    def _drop_unused_columns(self) -> None:
        """Forget which column is what where that was said of other rows, which had other columns."""
        from core.data.data_problems import columns_are_unused

        assert self.draft is not None
        columns, facts = dict(self.draft.data_key.columns), self.draft.data
        if facts is not None and columns_are_unused(columns, facts):
            # These rows are recognised by themselves already: they need not be read again.
            self.draft = self.draft.changed({"sftui.columns": messages.REMOVED}).with_data(facts)
            names = ", ".join(map(safe, columns.values()))
            self.notify(f"{names}: these rows have no such columns, and are recognised anew.", markup=False)

    def on_machine_read(self, message: messages.MachineRead) -> None:
        """Show the devices, and plan for them again when their free memory has moved."""
        self.machine = machine_line(message.gpus, message.host)
        devices = (message.gpus, message.host)
        if self.draft is not None and not same_memory(self._planned_for, devices):
            self._planned_for = devices
            self.draft = self.draft.with_devices(*devices)
        self.devices_read = devices
