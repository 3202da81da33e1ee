"""The held-out rows of a run, as it saw them."""

from collections.abc import Callable
from typing import Any

from core.data.rendering import DataRequest, PreparedData, prepare_data, sample_prompts
from core.errors import SftuiError
from core.models import loading
from core.results.asking import HeldOutPrompt
from core.runs.events import DataProgressed, Event
from core.spec.run_spec import RunSpec

MOST_PROMPTS = 1000


def held_out_data(
    spec: RunSpec,
    request: loading.LoadRequest,
    tokenizer: Any,
    hear: Callable[[str, int, int], object],
    stop: Callable[[], bool],
) -> PreparedData:
    """The rows of the run. Raises SftuiError where they are gone, and StoppedError soon after `stop` says so.

    `tokenizer` is the run's own; what was tokenized before is taken from the cache.
    """

    def tell(event: Event) -> None:
        if isinstance(event, DataProgressed):
            hear(f"{event.step} the rows", event.done, event.total)

    # What was left out is known; a row that is wrong now must not keep the model from answering.
    spec = spec.model_copy(update={"sftui": spec.sftui.model_copy(update={"bad_rows": "skip"})})
    return prepare_data(spec, DataRequest(tokenizer, request.folder, tell, stop))


def prompts_of(spec: RunSpec, data: PreparedData, rows: int = MOST_PROMPTS) -> tuple[HeldOutPrompt, ...]:
    """The prompts of the first held-out rows, with the answers that the rows have."""
    wanted = {"sample_prompts": [], "sample_rows": rows}
    asked = sample_prompts(spec.model_copy(update={"sftui": spec.sftui.model_copy(update=wanted)}), data)
    return tuple(
        HeldOutPrompt(one.messages if isinstance(one.messages, str) else list(one.messages), one.shown, one.expected)
        for one in asked
        if one.expected is not None
    )


def speaks_turns(data: PreparedData) -> bool:
    """Whether the rows are conversations; otherwise they are plain texts."""
    if data.form == "text" or not len(data.store):
        return False
    row = data.store.row(0).canonical
    return "messages" in row or not isinstance(row.get("prompt"), str)


def without_data(error: SftuiError) -> tuple[str, str]:
    """What to tell where the rows are gone: the model can be asked all the same."""
    return "The run's rows are not there", f"{error.title}: {error.message} There are no prompts to choose from."
