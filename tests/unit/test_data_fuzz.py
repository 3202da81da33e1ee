"""Ten thousand rows that nobody would write: each is kept or told in words, and none is a crash."""

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.column_types import ColumnTypes
from core.data.formats import recognise
from core.data.mapping import ColumnMapping, canonical, doubt
from core.data.readers import read_rows
from core.data.rows import KIND_TITLES, Fault

EXAMPLES, ROWS, VARIANTS = 50, 50, 4
KEYS = ("messages", "conversations", "prompt", "completion", "instruction", "output", "input", "text", "chosen",
        "system", "history", "tools", "images", "role", "content", "from", "value", "type", "tool_calls", "function",
        "name", "arguments", "url", "", "a\x1b[31m", "\ud800")  # fmt: skip
ROLES = ("system", "user", "assistant", "tool", "human", "gpt", "function_call", "Observation", "nobody", "")
MAPPINGS = (
    ColumnMapping(messages="messages", system="system", tools="tools", images="images"),
    ColumnMapping(messages="conversations", history="history"),
    ColumnMapping(prompt="prompt", completion="completion", images="images"),
    ColumnMapping(user="instruction", input="input", assistant="output", history="history", tools="tools"),
    ColumnMapping(text="text"),
    ColumnMapping(),
)

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=6) | st.sampled_from(
    ["", " ", "<image>", "<image><image>", "\x00\x1b]0;x\x07", "\ud83d", "\r\n", '"', "[{'role': 'user'", "9" * 5000]
)
leaves = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts | st.sampled_from(["a" * 20_000])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
part = st.fixed_dictionaries({"type": st.sampled_from(["text", "image", "image_url", "audio"])}, optional={
    "text": texts, "image": values, "image_url": values
})  # fmt: skip
turn = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": texts | values | st.lists(part, max_size=2)},
    optional={"tool_calls": values, "function_call": values, "name": values},
) | st.fixed_dictionaries({"from": st.sampled_from(ROLES), "value": texts | values})
say = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.just("Yes.") | st.none() | st.lists(part, max_size=2)},
    optional={
        "tool_calls": st.lists(
            st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": texts, "arguments": values})}), max_size=2
        ),
        "reasoning_content": values,
    },
)
call = st.fixed_dictionaries(
    {
        "from": st.just("function_call"),
        "value": st.builds(json.dumps, st.fixed_dictionaries({"name": texts, "arguments": values})),
    }
)
turns = st.lists(turn, max_size=3) | st.lists(say | call, min_size=1, max_size=2)
described = st.lists(
    st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": texts, "parameters": values})}), max_size=2
)
pictures = st.lists(st.just("a.png") | st.just({"bytes": "a"}), min_size=1, max_size=2)
row = (
    st.fixed_dictionaries(
        {"messages": turns | values},
        optional={"tools": values | described, "system": texts, "images": values | pictures},
    )
    | st.fixed_dictionaries({"conversations": turns}, optional={"history": values})
    | st.fixed_dictionaries(
        {"prompt": texts | turns, "completion": texts | turns}, optional={"images": values | pictures}
    )
    | st.fixed_dictionaries({"instruction": texts, "output": texts}, optional={"input": values, "history": values})
    | st.fixed_dictionaries({"text": values})
    | values
)
deep = st.builds(
    lambda opening, depth: opening * depth, st.sampled_from(["[", '{"messages":', '{"a":[']), st.integers(1, 1500)
)
nested = st.builds(
    lambda depth: json.dumps({"messages": [{"role": "user", "content": "a"}], "tools": 0}).replace(
        "0", "[" * depth + "]" * depth
    ),
    st.integers(1, 1500),
)


@st.composite
def lines(draw: st.DrawFn) -> list[bytes]:
    """A row of JSON, and the same one cut off, with bytes put into it, and with a quote that is none."""
    text = draw(st.builds(json.dumps, row, ensure_ascii=st.booleans()) | deep | nested)
    raw = text.encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, 100)) * len(raw) // 100
    return [raw, raw[:at], raw[:at] + draw(st.binary(min_size=1, max_size=3)) + raw[at:], raw.replace(b'"', b"'", 1)]


def read_through(file: Path) -> int:
    """Take every row of a file the whole way; the number of rows and problems."""
    read = list(read_rows(file))
    good = [found.value for found in read if isinstance(found.value, dict)]
    recognised = recognise(good[:20])
    assert recognised.reason
    types = ColumnTypes()
    for found in read:
        assert found.line >= 1
        if found.problem is not None:
            assert found.problem.kind in KIND_TITLES
            str(found.problem).encode()
            continue
        if isinstance(found.value, dict):
            types.changed(found.value)
        for mapping in {recognised.mapping, *MAPPINGS}:
            made = canonical(found.value, mapping)
            if isinstance(made, Fault):
                assert made.message.endswith(".") and made.fix.endswith(".")
                made.message.encode()
            else:
                assert mapping.form != "unknown"
                # What is kept can be written to a file and read again.
                assert json.loads(orjson.dumps(made)) is not None
                doubt(made)
    return len(read)


@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(written=st.lists(lines(), min_size=ROWS, max_size=ROWS))
def test_whatever_stands_in_a_file_is_kept_or_told(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[bytes]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [row for variants in written for row in variants]
    assert len(rows) == ROWS * VARIANTS
    together = b"\n".join(rows)
    file = folder / "fuzz.jsonl"
    file.write_bytes(b'{"text": "the first row"}\n' + together)
    assert read_through(file) == 1 + sum(bool(line.strip()) for line in together.split(b"\n"))
    for name, content in {
        "fuzz.json": b"[" + b",\n".join(rows) + b"]",
        "fuzz.csv": together,
        "fuzz.txt": together,
        "values.json": b"{\n" + together,
        "wrapped.json": b'{"data": [' + b",".join(rows),
        "cut.jsonl.gz": gzip.compress(together, 1)[:-20],
    }.items():
        (folder / name).write_bytes(content)
        read_through(folder / name)


ALL: list[Any] = [None, 0, "", "a", [], {}, [[]], [{}], {"a": {}}, b"\xff", 1.5, True, object()]


@pytest.mark.parametrize("slot", ColumnMapping.__dataclass_fields__)
def test_no_value_of_any_column_raises(slot: str) -> None:
    for value in ALL:
        for mapping in (ColumnMapping(**{slot: "x"}), *(ColumnMapping(**{**m.to_dict(), slot: "x"}) for m in MAPPINGS)):
            ask = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
            made = canonical(
                {**ask, "prompt": "a", "completion": "b", "instruction": "a", "output": "b", "x": value}, mapping
            )
            assert isinstance(made, Fault | dict)
