"""One pass over a dataset: what it is, what is wrong with it, stopped and killed at any time, and never done twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.data.check import StoppedError, check, read_facts
from core.data.check_process import CheckProcess, check_apart
from core.data.facts import DataFacts, Progress
from core.data.readers import read_rows
from core.data.request import CheckRequest, Source, files_request
from core.data.row_store import RowStore
from core.errors import SftuiError
from core.paths import cache_home
from tests.unit.test_row_store import turns, written


def stores() -> list[str]:
    home = cache_home() / "data"
    return sorted(entry.name for entry in home.iterdir()) if home.exists() else []


def many(file: Path, rows: int) -> Path:
    return written(file, *(turns(f"question {number}", "an answer " * 5) for number in range(rows)))


def slow(file: Path) -> Path:
    """A file that takes seconds to be read."""
    file.write_bytes((json.dumps(turns("again and again")) + "\n").encode() * 300_000)
    return file


def test_every_row_is_counted_and_every_problem_told_with_its_place(tmp_path: Path) -> None:
    file = written(
        tmp_path / "rows.jsonl",
        turns("a"),
        turns("a"),
        {"messages": [{"role": "usr", "content": "a"}]},
        '{"messages": [}',
        5,
        turns("b"),
    )
    facts = read_facts([file])
    assert (facts.form, facts.format_name, facts.rows, facts.bad_rows, facts.duplicates) == (
        "messages", "OpenAI messages", 3, 3, 1,
    )  # fmt: skip
    assert [(problem.line, problem.kind, problem.level) for problem in facts.problems] == [
        (3, "unknown_role", "error"),
        (4, "invalid_json", "error"),
        (5, "not_an_object", "error"),
        (2, "duplicate", "warning"),
    ]
    assert str(facts.problems[1]).startswith(f"{file}:4:15: Not JSON")
    assert facts.counts_by_kind == {"unknown_role": 1, "invalid_json": 1, "not_an_object": 1, "duplicate": 1}
    assert facts.preview == (turns("a"), turns("a"), turns("b"))
    assert facts.sample[0] == turns("a")
    assert facts.mapping.to_dict() == {"messages": "messages"}
    assert facts.bytes == file.stat().st_size
    assert DataFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_the_report_is_complete_where_the_display_is_not(tmp_path: Path) -> None:
    bad = [{"messages": [{"role": f"role {number}", "content": ""}]} for number in range(300)]
    facts = read_facts([written(tmp_path / "rows.jsonl", turns("a"), *bad)])
    assert (facts.bad_rows, len(facts.problems), facts.counts_by_kind) == (300, 200, {"unknown_role": 300})
    assert facts.report is not None
    told = [json.loads(line) for line in facts.report.read_text().splitlines()]
    assert [entry["line"] for entry in told] == list(range(2, 302))
    assert set(told[0]) == {"file", "line", "column", "kind", "level", "message", "fix"}
    assert read_facts([written(tmp_path / "good.jsonl", turns("a"))]).report is None


def test_files_that_did_not_change_are_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counted(file: Path, *more: Any) -> Any:
        reads.append(file)
        return read_rows(file, *more)

    monkeypatch.setattr("core.data.check.read_rows", counted)
    file = written(tmp_path / "rows.jsonl", turns("a"), "{")
    first = read_facts([file])
    assert read_facts([file]) == first
    assert len(reads) == 1
    written(file, turns("a"), turns("b"))
    changed = read_facts([file])
    assert (changed.rows, changed.bad_rows, len(reads)) == (2, 0, 2)
    # Other columns make other rows of the same file.
    check(CheckRequest((Source(str(file), columns=("messages",)),)))
    assert len(reads) == 3


def test_the_same_rows_have_the_same_hash_in_whatever_file(tmp_path: Path) -> None:
    rows = [turns("a"), turns("b")]
    plain = read_facts([written(tmp_path / "a.jsonl", *({"id": 7, **row} for row in rows))])
    whole = tmp_path / "b.json"
    whole.write_text(json.dumps(rows, indent=2))
    assert plain.content_hash == read_facts([whole]).content_hash
    assert plain.content_hash != read_facts([written(tmp_path / "c.jsonl", *reversed(rows))]).content_hash


def test_what_is_not_known_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", *({"frage": "wie?", "antwort": "so", "n": 1} for _ in range(500)))
    facts = read_facts([file])
    assert (facts.form, facts.rows, facts.store) == ("unknown", 0, None)
    assert facts.bad_rows < 500
    assert [column.name for column in facts.columns] == ["frage", "antwort", "n"]
    assert len(facts.sample) == 20
    by_hand = CheckRequest((Source(str(file)),), (("user", "frage"), ("assistant", "antwort")))
    named = check(by_hand)
    assert (named.form, named.rows, named.duplicates) == ("prompt-completion", 500, 499)
    assert named.mapping.to_dict() == {"user": "frage", "assistant": "antwort"}
    assert named.store is not None
    assert RowStore.open(named.store).row(499).canonical["completion"] == [{"role": "assistant", "content": "so"}]


def test_a_source_may_be_cut_to_some_of_its_columns(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", {**turns("a"), "text": "a plain text"})
    facts = check(CheckRequest((Source(str(file), columns=("text",)),)))
    assert (facts.form, facts.preview) == ("text", ({"text": "a plain text"},))
    assert facts.store is not None
    assert RowStore.open(facts.store).row(0).canonical == {"text": "a plain text"}


def test_a_mixture_takes_the_first_rows_of_each_as_trl_does(tmp_path: Path) -> None:
    first, second = many(tmp_path / "a.jsonl", 100), many(tmp_path / "b.jsonl", 30)
    request = CheckRequest((Source(str(first), fraction=0.5), Source(str(second), fraction=0.5)))
    facts = check(request)
    assert [(source.rows, source.used) for source in facts.sources] == [(100, 30), (30, 30)]
    assert facts.rows == 60
    assert facts.store is not None
    with RowStore.open(facts.store) as store:
        assert [row.file.name for row in store.rows(29, 31)] == ["a.jsonl", "b.jsonl"]
        assert len(store) == 60
    whole = check(CheckRequest((Source(str(first)), Source(str(second)))))
    assert (whole.rows, whole.content_hash != facts.content_hash) == (130, True)


def test_each_source_is_recognised_by_itself(tmp_path: Path) -> None:
    chat = written(tmp_path / "a.jsonl", {"question": "a", "answer": "b"})
    alpaca = written(tmp_path / "b.jsonl", {"instruction": "a", "input": "", "output": "b"})
    facts = check(CheckRequest((Source(str(chat)), Source(str(alpaca)))))
    assert (facts.form, facts.rows, facts.bad_rows) == ("prompt-completion", 2, 0)
    assert [source.mapping.to_dict()["user"] for source in facts.sources] == ["question", "instruction"]


def test_huge_values_are_cut_where_they_are_shown(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", *(turns("x" * 300_000, str(number)) for number in range(5)))
    facts = read_facts([file])
    assert facts.rows == 5
    assert len(facts.preview) == 3
    assert len(json.dumps(facts.sample)) < 20_000


def test_nothing_is_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "rows.jsonl"
    empty.write_text("\n\n")
    for facts in (read_facts([empty]), read_facts([])):
        assert (facts.form, facts.rows, facts.bad_rows, facts.store, facts.problems) == ("unknown", 0, 0, None, ())


def test_it_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.check._REPORT_SECONDS", 0.0)
    seen: list[Progress] = []
    facts = check(files_request(many(tmp_path / "a.jsonl", 100), many(tmp_path / "b.jsonl", 100)), seen.append)
    assert len(seen) > 10
    assert all(before.bytes_done <= after.bytes_done for before, after in pairwise(seen))
    assert {at.bytes_total for at in seen} == {facts.bytes}
    assert seen[-1].bytes_done == facts.bytes
    assert seen[-1].rows == 200


def test_stopped_it_leaves_nothing(tmp_path: Path) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(StoppedError):
        check(files_request(many(tmp_path / "a.jsonl", 500)), stop=stop)
    assert stores() == []


_READ_SLOWLY = """
import sys, time
from core.data import check as checking
real = checking.read_rows
def slowly(*given):
    for row in real(*given):
        yield row
        print(row.line, flush=True)
        time.sleep(0.01)
checking.read_rows = slowly
checking.read_facts([sys.argv[1]])
"""


def test_killed_it_leaves_no_half_store_and_the_next_pass_clears_up(tmp_path: Path) -> None:
    file = many(tmp_path / "a.jsonl", 500)
    with subprocess.Popen([sys.executable, "-c", _READ_SLOWLY, str(file)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    (left,) = stores()
    assert left.startswith(".")
    facts = read_facts([file])
    assert facts.rows == 500
    assert facts.store is not None
    assert stores() == [facts.store.name]


def test_of_two_passes_over_the_same_files_the_faster_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.data.check._REPORT_SECONDS", 0.0)
    file = many(tmp_path / "a.jsonl", 100)
    faster: list[tuple[DataFacts, int]] = []

    def meanwhile(_: Progress) -> None:
        if not faster:
            facts = read_facts([file])
            assert facts.store is not None
            faster.append((facts, facts.store.stat().st_ino))

    facts = check(files_request(file), meanwhile)
    assert facts.store is not None
    assert (facts, facts.store.stat().st_ino) == faster[0]
    assert stores() == [facts.store.name]


def test_a_file_that_is_still_being_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.check._REPORT_SECONDS", 0.0)
    file = many(tmp_path / "a.jsonl", 100)

    def write_on(_: Progress) -> None:
        with file.open("a") as opened:
            opened.write("\n")

    with pytest.raises(SftuiError, match=r"a\.jsonl changed while the data was read"):
        check(files_request(file), write_on)
    assert read_facts([file]).rows == 100


def test_stores_that_nobody_used_for_a_month_are_cleared_away(tmp_path: Path) -> None:
    old, used = read_facts([many(tmp_path / "a.jsonl", 1)]), read_facts([many(tmp_path / "b.jsonl", 2)])
    for facts in (old, used):
        assert facts.store is not None
        os.utime(facts.store / "facts.json", (0, 0))
    assert read_facts(used.files) == used
    read_facts([many(tmp_path / "c.jsonl", 3)])
    assert old.store is not None
    assert used.store is not None
    assert (old.store.exists(), used.store.exists()) == (False, True)


def test_without_room_for_the_index_it_says_where(tmp_path: Path, own_home: Path) -> None:
    cache_home().parent.mkdir(parents=True)
    cache_home().write_text("a file where a folder should be")
    with pytest.raises(SftuiError, match="index cannot be written"):
        read_facts([many(tmp_path / "a.jsonl", 1)])


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    code = "import resource, sys; from core.data.check import read_facts; read_facts(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"

    def peak(rows: int) -> int:
        file = many(tmp_path / f"{rows}.jsonl", rows)
        ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, check=True)
        return int(ran.stdout)

    # 30,000 rows are 5 MB here, and some 50 MB as objects.
    assert peak(30_000) - peak(1_000) < 10_000


def test_a_process_of_its_own_finds_the_same(tmp_path: Path) -> None:
    file = many(tmp_path / "a.jsonl", 2000)
    process = CheckProcess(files_request(file))
    seen = list(process)
    assert seen[-1].bytes_done == file.stat().st_size
    assert process.facts() == read_facts([file])
    with pytest.raises(SftuiError, match="does not exist"):
        CheckProcess(files_request(tmp_path / "nothing.jsonl")).facts()


def test_a_process_is_cancelled_from_any_thread(tmp_path: Path) -> None:
    process = CheckProcess(files_request(slow(tmp_path / "a.jsonl")))
    next(iter(process))
    threading.Thread(target=process.cancel).start()
    with pytest.raises(StoppedError):
        process.facts()
    process.cancel()
    assert stores() == []


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    process = CheckProcess(files_request(slow(tmp_path / "a.jsonl")))
    next(iter(process))
    process._process.kill()
    with pytest.raises(SftuiError, match=r"was killed \(SIGKILL\): by hand, or because memory ran out"):
        process.facts()


def test_a_library_that_dies_of_a_damaged_file_takes_nobody_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying").mkdir()
    (tmp_path / "dying" / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "dying"))
    with pytest.raises(SftuiError, match=r"died \(SIGSEGV\): a library fails on this file, which may be damaged"):
        check_apart(files_request(many(tmp_path / "a.jsonl", 10)))


def test_a_split_may_take_its_first_rows_only(tmp_path: Path) -> None:
    file = str(many(tmp_path / "a.jsonl", 40))
    for split, rows in (("train[:10%]", 4), ("train[:7]", 7), ("train[:100]", 40), ("train", 40)):
        facts = check(CheckRequest((Source(file, split=split),)))
        assert (facts.rows, facts.sources[0].rows) == (rows, 40)
    with pytest.raises(SftuiError, match="takes another part of the split"):
        check(CheckRequest((Source(file, split="train[10%:]"),)))


def test_columns_of_other_rows_say_nothing_of_these(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", {"frage": "a", "antwort": "b", "text": "c"})
    told = (("user", "frage"), ("assistant", "antwort"))
    assert check(CheckRequest((Source(str(file)),), told)).mapping.to_dict() == dict(told)
    (other,) = check(CheckRequest((Source(str(file)),), (("user", "frage"), ("assistant", "reply")))).sources
    assert (other.format_name, other.rows) == ("plain text", 1)


def test_rows_with_images_are_counted(tmp_path: Path) -> None:
    picture = {**turns("a"), "images": ["a.png"]}
    file = written(tmp_path / "a.jsonl", picture, {**turns("b"), "images": []}, {**turns("c"), "images": None})
    assert read_facts([file]).with_images == 1


def test_only_what_a_source_needs_is_imported(tmp_path: Path) -> None:
    file = many(tmp_path / "a.jsonl", 10)
    heavy = ("numpy", "pyarrow", "datasets", "pandas", "torch", "transformers", "huggingface_hub", "textual")
    code = f"import sys, core.data.checking; from core.data.check import read_facts; read_facts(sys.argv[1:]); " \
        f"print([name for name in {heavy} if name in sys.modules])"  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, check=True, text=True)
    assert ran.stdout.strip() == "[]"
