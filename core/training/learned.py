"""What the end of a run teaches the plans of later ones."""

import json

from core.memory.calibration import Record, record, versions_here
from core.runs.events import RunFailed, TerminalEvent
from core.runs.folder import RunFolder
from core.training.whereabouts import Whereabouts

# The first step makes the optimizer's state; only the second one holds everything at once.
_LEAST_STEPS = 2


def keep_for_calibration(folder: RunFolder, at: Whereabouts, outcome: TerminalEvent) -> bool:
    """Keep the peak of a run on a GPU beside what was predicted; False where that says nothing. Raises OSError.

    On a CPU the process' growth is measured, which is not what a plan predicts.
    """
    peak = at.peak
    if at.gpu is None or peak is None or peak.device != "gpu" or peak.predicted_bytes is None:
        return False
    if at.steps_done < _LEAST_STEPS:
        return False
    if isinstance(outcome, RunFailed) and outcome.memory is not None and peak.bytes < peak.predicted_bytes:
        # It ran out before it held all that it needs.
        return False
    predicted, correction = peak.predicted_bytes, _correction(folder)
    record(Record(at.gpu.name, at.driver or "", versions_here(), predicted, correction, peak.bytes))
    return True


def _correction(folder: RunFolder) -> int:
    try:
        return int(json.loads(folder.plan_file.read_bytes())["memory"]["correction_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        # A plan of a version that did not correct.
        return 0
