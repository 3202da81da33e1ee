"""The journal: whole lines in order, one end, and a reader that no torn line can stop."""

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.runs import events
from core.runs.events import EVENT_TYPES, TERMINAL, Entry, decode, encode
from core.runs.journal import JournalReader, JournalWriter

ROOT = Path(__file__).parents[2]
GPU = events.GpuUse(0, "NVIDIA L4", 24_000, 12_000, None, 97, 61, 71.5)
ANSWERS = (events.Answer("Wer?", "Ich \u202e ☃ \ud83d", None), events.Answer("a", "b", "c"))
MENDS = (events.Mend("Batch 1", ("per_device_train_batch_size=1",), 1_000), events.Mend("Anew", (), None, True))
NEWCOMER = events.GpuUser(4121, "ml", "vllm", None)
RAN_OUT = events.OutOfMemory("gpu", "training", 4, 8_192, 10, 20, None, 40, 5, 0, (NEWCOMER,), MENDS)
EVERY_EVENT: tuple[events.Event, ...] = (
    events.RunQueued("run", "model", "qlora", 42, 2, "GPU 0, behind another"),
    events.RunStarted("run", "model", "qlora", 42, "0.1.0", warm=True),
    events.PhaseStarted("loading", "LlamaForCausalLM"),
    events.ChoiceMade("dtype", "bfloat16", "compute capability 9.0"),
    events.DataProgressed("checking", 100, 400),
    events.DataPrepared("messages", 480, 48),
    events.LoadProgressed(done_bytes=10, total_bytes=40, done_files=1, total_files=3),
    events.ModelLoaded("AutoModelForCausalLM", "llama", 2_000, 4_000, "bfloat16", "cpu", "sdpa"),
    events.ModelAdapted(100, 2_100, ("q_proj", "v_proj")),
    events.TrainingStarted(100, 4.0, 50),
    events.StepCompleted(1, 0.1, 2.5, 2e-4, None, 1000, 512.5, 0.5, 0.75),
    events.EvaluationCompleted(10, 2.25, 1.5),
    events.MemorySampled(1_000, 2_000, 8_000, 12.5, (GPU,)),
    events.PeakMeasured(3, "gpu", 9_000, 8_000, 8_500, None),
    events.MemoryProbed("host", 9_000, 80_000, 4, 8_192, 2.5),
    events.CheckpointCommitted(50, "checkpoints/checkpoint-50", 12_345, 0.25),
    events.CheckpointDeleted("checkpoints/checkpoint-10"),
    events.RunPaused(60, "The disk is full", "checkpoints/checkpoint-60 is not saved yet."),
    events.RunContinued(60, 12.5),
    events.LengthChanged(60, 200, None),
    events.SamplesAnswered("tuned", 100, ANSWERS),
    events.CommandAccepted("ab12", "checkpoint"),
    events.ProblemNoticed("A title", "two\nlines"),
    events.TroubleNoticed("not_finite", "The loss is not a number", "Lower the rate.", 61, "stop"),
    events.TroubleEnded("gpu_slowed", 62),
    events.RunFinished(100, "adapter", 61.5),
    events.RunStopped(60, None, "stopped by SIGTERM", 30.5, released=True),
    events.RunFailed("ValueError", "title", "message", "hint", "traceback.txt", 3, 4.5, RAN_OUT),
)  # fmt: skip


def step(number: int, loss: float = 2.0) -> events.StepCompleted:
    return events.StepCompleted(number, 0.0, loss, 1e-4, 0.5, number, 1.0, 0.1)


def read(path: Path) -> list[Entry]:
    return JournalReader(path).read_new()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_every_kind_of_event_is_tried_here() -> None:
    assert {type(event).__name__ for event in EVERY_EVENT} == set(EVENT_TYPES)


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was_written(path: Path, event: events.Event) -> None:
    writer = JournalWriter(path)
    assert writer.write(event)
    writer.close()
    (entry,) = read(path)
    assert entry.event == event
    assert entry.seq == 1
    assert path.read_bytes().isascii()
    assert path.read_bytes().count(b"\n") == 1


def test_nan_and_infinity_survive_in_json_that_anybody_can_read(path: Path) -> None:
    writer = JournalWriter(path)
    writer.write(events.StepCompleted(1, 0.5, math.nan, math.inf, -math.inf, 10, 1.0, 0.1, math.nan))
    line = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (line["loss"], line["learning_rate"], line["grad_norm"]) == ("nan", "inf", "-inf")
    (entry,) = read(path)
    assert isinstance(entry.event, events.StepCompleted)
    assert math.isnan(entry.event.loss)
    assert entry.event.token_accuracy is not None and math.isnan(entry.event.token_accuracy)
    assert (entry.event.learning_rate, entry.event.grad_norm) == (math.inf, -math.inf)
    writer.close()


def test_a_whole_number_from_another_writer_is_still_a_float() -> None:
    entry = decode('{"seq": 1, "time": 5, "type": "EvaluationCompleted", "step": 1, "loss": 2, "seconds": 1}')
    assert entry is not None
    assert isinstance(entry.time, float)
    assert isinstance(entry.event, events.EvaluationCompleted)
    assert isinstance(entry.event.loss, float)


def test_unknown_events_and_unknown_fields_of_a_newer_version_are_passed_over(path: Path) -> None:
    path.write_text(
        '{"seq": 1, "time": 1.0, "type": "MoonRisen", "phase": "full"}\n'
        '{"seq": 2, "time": 2.0, "type": "PhaseStarted", "phase": "training", "mood": "good"}\n'
    )
    assert read(path) == [Entry(2, 2.0, events.PhaseStarted("training"))]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "5",
        '"RunFinished"',
        "[" * 100_000,
        "\x00\x00\x00",
        '{"seq": 1, "time": 1.0}',
        '{"seq": "x", "time": 1.0, "type": "RunFinished"}',
        '{"seq": 1e999, "time": 1.0, "type": "RunFinished"}',
        '{"seq": null, "time": 1.0, "type": "RunFinished"}',
        '{"seq": 1, "time": 1.0, "type": "RunFinished"}',
        '{"seq": 1, "time": 1.0, "type": "EvaluationCompleted", "step": 1, "loss": "low", "seconds": 1}',
        '{"seq": 1, "time": 1.0, "type": "EvaluationCompleted", "step": 1, "loss": [], "seconds": 1}',
    ],
)
def test_a_line_that_is_no_entry_is_skipped(path: Path, line: str) -> None:
    good = encode(Entry(7, 1.0, events.PhaseStarted("saving")))
    path.write_text(f"{line}\n{good}\n")
    assert [entry.seq for entry in read(path)] == [7]


def test_a_torn_last_line_is_left_until_it_is_whole(path: Path) -> None:
    first, second = (encode(Entry(number, 1.0, step(number))) + "\n" for number in (1, 2))
    reader = JournalReader(path)
    assert reader.read_new() == []
    path.write_text(first + second[:20])
    assert [entry.seq for entry in reader.read_new()] == [1]
    assert reader.read_new() == []
    path.write_text(first + second)
    assert [entry.seq for entry in reader.read_new()] == [2]
    assert reader.read_new() == []


def test_a_line_that_a_killed_writer_tore_does_not_swallow_the_next_ones(path: Path) -> None:
    path.write_text(encode(Entry(4, 1.0, step(4))) + "\n" + encode(Entry(5, 1.0, step(5)))[:25])
    reader = JournalReader(path)
    assert [entry.seq for entry in reader.read_new()] == [4]
    writer = JournalWriter(path)
    writer.write(step(6))
    writer.write(step(7))
    writer.close()
    entries = reader.read_new()
    assert [entry.event for entry in entries] == [step(6), step(7)]
    assert [entry.seq for entry in entries] == [5, 6]


class Disk:
    """The disk under the journal: takes so many bytes more, then says that it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self._write(file, data[: self.room])
        self.room -= written
        return written


def test_what_a_full_disk_does_not_take_is_written_later_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(path)
    disk = Disk(monkeypatch, room=30)
    assert writer.write(step(1))
    assert writer.write(step(2))
    assert not writer.flush()
    assert read(path) == []
    disk.room = 10_000
    assert writer.flush()
    assert writer.write(events.RunFinished(2, "adapter", 1.0))
    writer.close()
    assert [entry.event for entry in read(path)] == [step(1), step(2), events.RunFinished(2, "adapter", 1.0)]
    assert [entry.seq for entry in read(path)] == [1, 2, 3]


def test_the_last_room_is_for_saying_that_there_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = path.with_name(".reserve")
    writer = JournalWriter(path, reserve)
    kept = reserve.stat().st_size
    assert kept > 10_000
    disk = Disk(monkeypatch, room=0)
    unlink = Path.unlink

    def give_room(file: Path, missing_ok: bool = False) -> None:
        unlink(file, missing_ok)
        disk.room += kept

    monkeypatch.setattr(Path, "unlink", give_room)
    assert writer.write(events.RunPaused(1, "The disk is full"))
    assert [entry.event for entry in read(path)] == [events.RunPaused(1, "The disk is full")]
    # Now that there is room again, some is kept for the next time.
    assert reserve.stat().st_size == kept
    writer.close()
    assert not reserve.exists()


def test_a_later_writer_goes_on_counting(path: Path) -> None:
    for number in (1, 2):
        writer = JournalWriter(path)
        writer.write(step(number))
        writer.close()
    assert [entry.seq for entry in read(path)] == [1, 2]
    assert oct(path.stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("last", [event for event in EVERY_EVENT if isinstance(event, TERMINAL)])
def test_after_the_end_nothing_is_written(path: Path, last: events.Event) -> None:
    writer = JournalWriter(path)
    assert not writer.ended
    assert writer.write(last)
    assert writer.ended
    assert not writer.write(step(1))
    assert not writer.write(events.RunFinished(1, "adapter", 1.0))
    writer.close()
    writer.close()
    assert not writer.write(step(2))
    assert [entry.event for entry in read(path)] == [last]


def test_threads_that_write_at_once_lose_nothing_and_end_the_run_once(path: Path) -> None:
    writer = JournalWriter(path)
    ready = threading.Barrier(8)
    accepted: list[bool] = []

    def work(thread: int) -> None:
        ready.wait()
        for number in range(50):
            accepted.append(writer.write(step(thread * 100 + number)))
        accepted.append(writer.write(events.RunStopped(thread, None, "at once", 1.0)))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    entries = read(path)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert sum(accepted) == len(entries)
    assert [isinstance(entry.event, TERMINAL) for entry in entries] == [False] * (len(entries) - 1) + [True]


SIGNALLED = """
import os, signal, sys
from pathlib import Path
from core.runs import events
from core.runs.journal import JournalWriter

writer = JournalWriter(Path(sys.argv[1]))

def stop_now(number, frame):
    writer.write(events.RunStopped(0, None, "at once", 0.0))
    os._exit(9)

signal.signal(signal.SIGTERM, stop_now)
encode = events.encode

def interrupted(entry):
    # The handler runs now, in this thread, while it is in the middle of a write.
    if isinstance(entry.event, events.PhaseStarted):
        signal.raise_signal(signal.SIGTERM)
    return encode(entry)

import core.runs.journal
core.runs.journal.encode = interrupted
writer.write(events.PhaseStarted("training"))
"""


def test_a_signal_in_the_middle_of_a_write_still_ends_the_run(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(path)], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == 9
    assert [type(entry.event) for entry in read(path)] == [events.RunStopped]


def test_a_long_journal_is_read_in_pieces_of_whole_lines(path: Path) -> None:
    writer = JournalWriter(path)
    for number in range(1, 101):
        writer.write(step(number))
    reader = JournalReader(path)
    pieces = []
    while piece := reader.read_new(1000):
        pieces.append(piece)
    assert len(pieces) > 5
    assert [entry.seq for piece in pieces for entry in piece] == list(range(1, 101))


def test_a_field_of_a_later_version_and_a_whole_number_for_a_float_are_read(path: Path) -> None:
    line = {"seq": 1, "time": 5, "type": "RunFinished", "step": 3, "result": "adapter", "seconds": 61, "mood": "good"}
    path.write_text(json.dumps(line) + "\n")
    (entry,) = read(path)
    assert entry.event == events.RunFinished(3, "adapter", 61.0)
    assert isinstance(entry.time, float) and isinstance(entry.event.seconds, float)
