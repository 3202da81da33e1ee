"""What a run holds at most, beside what its plan says."""

import json
from itertools import pairwise
from pathlib import Path

from core.runs import events
from core.runs.folder import summarize
from core.runs.journal import JournalWriter
from core.spec.yaml_file import read_spec
from core.training.peak import PeakMeter
from core.training.worker import TrainingWorker
from tests.training.runs import make_run

MIB = 1 << 20


def test_a_run_tells_the_growth_of_its_process_beside_the_plan_and_again_only_when_it_grows(
    tiny_model: Path, rows: Path
) -> None:
    folder = make_run(tiny_model, rows, max_steps=6)
    folder.plan_file.write_text(json.dumps({"memory": {"total_bytes": 123 * MIB, "total_is_complete": True}}))
    told: list[events.Event] = []
    worker = TrainingWorker(read_spec(folder.spec_file), folder, told.append)
    worker.start()
    worker.join(300)
    assert isinstance(worker.outcome, events.RunFinished), worker.outcome
    peaks = [event for event in told if isinstance(event, events.PeakMeasured)]
    assert peaks[0].step == 1
    assert all(later.bytes >= sooner.bytes > 0 for sooner, later in pairwise(peaks))
    assert peaks[-1].step == 6 and len(peaks) < 7
    assert {(one.device, one.allocated_bytes, one.predicted_bytes) for one in peaks} == {("host", None, 123 * MIB)}

    journal = JournalWriter(folder.journal_file)
    journal.write(peaks[-1])
    journal.close()
    assert summarize(folder).peak == peaks[-1]


def test_what_the_process_held_before_is_not_the_runs_and_what_it_gave_back_since_is() -> None:
    earlier = b"x" * (64 * MIB)
    del earlier
    meter = PeakMeter(None, None)
    assert meter.look(0).bytes < 16 * MIB
    briefly = b"x" * (48 * MIB)
    del briefly
    held = meter.look(1).bytes
    assert 40 * MIB < held < 64 * MIB
    meter.restart()
    assert meter.look(1).bytes < 16 * MIB
