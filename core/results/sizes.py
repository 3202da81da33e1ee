"""About what an export takes, told before it is started."""

from core.errors import SftuiError
from core.results.adapter_export import adapter_bytes
from core.results.exporting import Kind
from core.results.result import find_result
from core.runs.folder import RunFolder


def estimated_bytes(run: RunFolder, kind: Kind, step: int | None) -> int | None:
    """The bytes at the place that an export goes to, with what is there only until it is whole; None if unknown."""
    try:
        result = find_result(run, step)
    except SftuiError:
        return None
    state = run.read_state()
    whole = 2 * state.loaded.parameters if state.loaded is not None else None
    match kind:
        case "adapter" | "push" if result.kind == "adapter":
            return adapter_bytes(result)
        case "merged" | "push":
            return whole
        case "gguf":
            return None if whole is None else 2 * whole
        case _:
            tokens = state.data.tokens if state.data is not None else None
            return None if tokens is None else 12 * tokens
