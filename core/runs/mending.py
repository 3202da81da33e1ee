"""Going on with a run whose memory ran out, with a change of its spec that makes it smaller."""

import json

from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.events import Mend, RunFailed
from core.runs.folder import RunFolder
from core.runs.state import RunState


def mends_of(state: RunState) -> tuple[Mend, ...]:
    """The changes that a run's end offers, the best first; none for a run that ended otherwise."""
    outcome = state.outcome or state.gone
    return outcome.memory.mends if isinstance(outcome, RunFailed) and outcome.memory is not None else ()


def chosen_mend(folder: RunFolder, state: RunState, number: int = 1) -> Mend:
    """The mend of this number. Raises SftuiError where there is none."""
    mends = mends_of(state)
    if not mends:
        message = f"{folder.id} did not end for lack of memory, or nothing is known that would help."
        raise SftuiError("There is nothing to mend", message, f"`sftui resume {folder.id}` goes on as it was.")
    if not 1 <= number <= len(mends):
        raise SftuiError("No such mend", f"{folder.id} has {len(mends)}, and {number} is none of them.")
    return mends[number - 1]


def apply_mend(folder: RunFolder, mend: Mend) -> int | None:
    """Change the run's spec, and its plan with it. Returns the step to resume from: None for the newest checkpoint.

    Nothing is started. Raises SftuiError or OSError; then all is as it was.
    """
    # Whoever only watches a run need not wait for these.
    from core.memory.mends import mended
    from core.memory.plan import plan_here
    from core.spec.yaml_file import read_spec, to_yaml

    if folder.is_alive():
        raise SftuiError("The run is running", f"A runner holds {folder.id}.")
    spec = mended(read_spec(folder.spec_file), mend)
    plan = json.dumps(plan_here(spec).to_json(), indent=2)
    write_atomically(folder.spec_file, to_yaml(spec))
    write_atomically(folder.plan_file, plan)
    return 0 if mend.begins_anew else None
