"""Rows read again by their number: from the files they stand in, or from a copy where that cannot be."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.data.check import check, read_facts
from core.data.request import files_request
from core.data.row_store import RowStore
from core.data.seen_hashes import SeenHashes
from core.errors import SftuiError


def turns(ask: str, answer: str = "yes") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}


def written(file: Path, *lines: Any) -> Path:
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def opened(*files: Path) -> RowStore:
    facts = read_facts(files)
    assert facts.store is not None
    return RowStore.open(facts.store)


def test_rows_are_those_that_were_good_with_their_lines(tmp_path: Path) -> None:
    file = written(
        tmp_path / "rows.jsonl", turns("a"), "{broken", "", turns("b"), {"messages": []}, turns("ç\U0001f600")
    )
    with opened(file) as store:
        assert len(store) == 3
        assert [(row.file, row.line, row.canonical) for row in store.rows()] == [
            (file, 1, turns("a")),
            (file, 4, turns("b")),
            (file, 6, turns("ç\U0001f600")),
        ]
        assert store.row(1).line == 4
        assert [row.line for row in store.rows(1, 2)] == [4]
        assert [row.line for row in store.rows(2, 99)] == [6]
        assert list(store.rows(3)) == []
        for wrong in (-1, 3):
            with pytest.raises(IndexError):
                store.row(wrong)


def test_plain_jsonl_is_not_copied_and_all_else_is(tmp_path: Path) -> None:
    plain = written(tmp_path / "rows.jsonl", turns("a"))
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(turns("b")).encode()))
    table = written(tmp_path / "table.csv", "instruction,output", "ask,tell")
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps([turns("c"), turns("d")], indent=1))
    with opened(plain, packed) as store:
        assert [row.canonical for row in store.rows()] == [turns("a"), turns("b")]
    with opened(whole) as store:
        assert [(row.line > 1, row.canonical) for row in store.rows()] == [(True, turns("c")), (True, turns("d"))]
    facts = read_facts([plain])
    assert facts.store is not None
    assert not (facts.store / "rows.jsonl").exists()
    with opened(table) as store:
        row = store.row(0)
        assert (row.file, row.line) == (table, 2)
        assert row.canonical["completion"] == [{"role": "assistant", "content": "tell"}]


def test_a_byte_order_mark_and_carriage_returns_do_not_shift_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(turns(name)) for name in "ab"]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    with opened(file) as store:
        assert [row.canonical for row in store.rows()] == [turns("a"), turns("b")]


def test_more_files_than_may_be_open_at_once(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{number:02}.jsonl", turns(str(number))) for number in range(40)]
    with opened(*files) as store:
        assert [row.canonical for row in store.rows()] == [turns(str(number)) for number in range(40)]
        assert store.row(0).canonical == turns("0")


def test_a_file_that_changed_is_not_read_for_what_it_was(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", turns("a"), turns("b"))
    facts = read_facts([file])
    assert facts.store is not None
    store = RowStore.open(facts.store)
    before = file.stat()
    written(file, turns("c"), "[1, 2, 3]".ljust(len(json.dumps(turns("b")))))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(SftuiError, match="is not what it was"):
        RowStore.open(facts.store)
    with pytest.raises(SftuiError, match="is not what it was"):
        store.row(1)
    file.unlink()
    with pytest.raises(SftuiError, match="cannot be read"):
        RowStore.open(facts.store)
    store.close()


def test_a_store_that_is_gone_or_damaged_is_told(tmp_path: Path) -> None:
    facts = read_facts([written(tmp_path / "rows.jsonl", turns("a"))])
    assert facts.store is not None
    (facts.store / "index-0.bin").unlink()
    with pytest.raises(SftuiError, match="gone or damaged"):
        RowStore.open(facts.store)
    with pytest.raises(SftuiError, match="gone or damaged"):
        RowStore.open(tmp_path / "nothing")
    # The next pass mends it.
    assert read_facts([tmp_path / "rows.jsonl"]).rows == 1
    assert len(RowStore.open(facts.store)) == 1


def test_a_file_name_that_is_not_unicode_is_no_hindrance(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xffws.jsonl"))
    written(file, turns("a"), "{")
    facts = check(files_request(file))
    assert (facts.rows, facts.bad_rows, facts.files) == (1, 1, (file,))
    assert facts.store is not None
    assert RowStore.open(facts.store).row(0).file == file


def test_hashes_seen_before_are_known_while_the_table_grows_and_when_it_is_full() -> None:
    seen = SeenHashes()
    numbers = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(-5000, 5000)]
    assert not any(seen.add(number) for number in numbers)
    assert all(seen.add(number) for number in numbers)
    small = SeenHashes(most_slots=2**12)
    assert not any(small.add(number) for number in numbers)
    known = sum(small.add(number) for number in numbers)
    assert 3000 < known < 4096
