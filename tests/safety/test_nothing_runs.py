"""A model, a dataset, a spec or a run from anywhere: nothing in it runs, and what is refused is refused in words."""

import contextlib
import gzip
import io
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.cli import main
from core.data.request import Source
from core.data.splits import choose_files
from core.errors import SftuiError
from core.models.adapter_files import find_start
from core.runs.checkpoints import MANIFEST, find_damage
from core.runs.commands import send
from core.runs.folder import RunFolder, all_runs
from core.runs.launch import start_run
from core.runs.notes import add_note
from tests.hub_server import Hub, running_hub
from tests.model_files import LLAMA, write_safetensors
from tests.safety.hostile_files import hostile_models, llama, pickled
from tests.tiny import write_rows
from tests.tui.helpers import begin, write_run


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that must not be there at the end."""
    file = tmp_path / "canary"
    yield file
    assert not file.exists(), "something ran"


def told(*arguments: str) -> tuple[int, str]:
    """A command's exit status, and all that it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main(arguments)
    return status, output.getvalue()


def spec_file(folder: Path, **values: Any) -> str:
    file = folder / "spec.yaml"
    file.write_text(json.dumps(values))
    return str(file)


def test_no_model_runs_anything_and_each_is_refused_with_its_reason(tmp_path: Path, canary: Path) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", 4))
    for words, folder in hostile_models(tmp_path, canary).items():
        reason = words.rstrip("0123456789")
        output = told("model", str(folder))[1]
        assert reason in output, (words, output)
        spec = spec_file(tmp_path, model_name_or_path=str(folder), datasets=[{"path": rows}])
        for command in ("plan", "run"):
            assert told(command, spec)[0] == 2, words
        told("data", spec)
    assert all_runs() == (), "nothing was started"


def test_an_adapter_that_is_pickled_is_no_start(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (tmp_path / "adapter_model.bin").write_bytes(pickled(canary))
    with pytest.raises(SftuiError, match="a pickle, which can run code"):
        find_start(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {canary}']",
        "model_name_or_path: !!python/object/apply:builtins.open ['{canary}', 'w']",
        "model_name_or_path: !!python/name:os.system",
        "datasets: [!!python/object/new:os.system ['touch {canary}']]",
        "sftui: !!python/module:os",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmodel_name_or_path: *c",
    ],
)
def test_tags_in_a_spec_are_refused_with_their_line(text: str, tmp_path: Path, canary: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"learning_rate: 1e-4\n{text.replace('{canary}', str(canary))}\n")
    for command in ("plan", "run", "data"):
        status, output = told(command, str(file))
        assert status == 2
        assert f"{file}:" in output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trust_remote_code", True),
        ("output_dir", "/tmp/elsewhere"),
        ("resume_from_checkpoint", "/tmp/foreign"),
        ("model_init_kwargs", {"trust_remote_code": True, "use_kernels": True}),
        ("hub_token", "hf_canary"),
        ("report_to", "wandb"),
        ("push_to_hub", True),
        ("logging_dir", "../../elsewhere"),
    ],
)
def test_what_would_leave_the_runs_folder_or_run_code_is_no_option(name: str, value: Any, tmp_path: Path) -> None:
    values = {"model_name_or_path": str(llama(tmp_path / "model")), "datasets": [{"path": "rows.jsonl"}], name: value}
    spec = spec_file(tmp_path, **values)
    _, output = told("plan", spec)
    assert f"{name}: is not used" in output
    assert "hf_canary" not in output + told("plan", spec, "--yaml")[1]
    assert f"\n{name}:" not in told("plan", spec, "--yaml")[1]


@pytest.mark.parametrize("name", ["../rows.jsonl", "/etc/passwd", "a/../../rows.jsonl", "..", "~/rows.jsonl"])
def test_a_datasets_card_reaches_nothing_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    write_rows(tmp_path / "rows.jsonl", 4)
    write_rows(folder / "train.jsonl", 4)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {name}\n---\n")
    status, output = told("data", str(folder))
    assert status == 2
    assert "no data file that fits" in output
    with pytest.raises(SftuiError, match="no data file that fits"):
        choose_files(["train.jsonl"], (folder / "README.md").read_text(), Source("org/x"), "x")


def test_a_datasets_script_and_its_pickles_are_never_run(tmp_path: Path, canary: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "dataset.py").write_text(f"open({str(canary)!r}, 'w')")
    (folder / "rows.pkl").write_bytes(pickled(canary))
    assert told("data", str(folder))[0] == 2
    for name in ("rows.pkl", "rows.jsonl", "rows.parquet", "rows.arrow", "rows.csv"):
        (tmp_path / name).write_bytes(pickled(canary))
        status, output = told("data", str(tmp_path / name))
        assert status != 0, output


def test_names_of_a_hub_that_leave_the_cache_are_not_written(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = b"".join(b'{"prompt": "a", "completion": "b"}\n' for _ in range(3))
    with running_hub(own_home, monkeypatch) as hub:
        outside = ("../../../../outside.jsonl", "/tmp/sftui-outside.jsonl", "a/../../../../../outside.jsonl")
        hub.add("datasets/org/rows", {"train.jsonl": good, **dict.fromkeys(outside, good)})
        assert told("data", "org/rows")[0] == 0
        config = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
        write_safetensors(tmp_path / "w", LLAMA)
        weights = (tmp_path / "w").read_bytes()
        _add_model(hub, {"config.json": config, "model.safetensors": weights, **dict.fromkeys(outside, b"{}")})
        from core.models.download import Download

        with contextlib.suppress(SftuiError):
            Download("org/model").run()
    assert list(tmp_path.rglob("*outside*")) == []
    assert not Path("/tmp/sftui-outside.jsonl").exists()


def _add_model(hub: Hub, files: dict[str, bytes]) -> None:
    names = {name.replace("jsonl", "json"): data for name, data in files.items()}
    hub.add("org/model", names)


def test_links_of_a_dataset_out_of_its_folder_are_not_followed_in_circles_or_into_devices(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "circle").symlink_to(folder)
    (folder / "zeros.jsonl").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jsonl")
    assert told("data", str(folder))[0] == 2
    for name in ("zeros.jsonl", "pipe.jsonl"):
        status, output = told("data", str(folder / name))
        assert status != 0
        assert "not an ordinary file" in output


def test_bombs_of_data_end_in_a_word_and_not_in_the_machines_memory(tmp_path: Path) -> None:
    bombs = {
        "zeros.jsonl.gz": gzip.compress(bytes(300_000_000), 9),
        "deep.jsonl": b'{"a":' * 200_000 + b"\n",
        "deeper.jsonl.gz": gzip.compress(b"[" * 5_000_000),
        "nested.gz": gzip.compress(gzip.compress(gzip.compress(b"{}"))),
        "quote.csv": b'a,b\n"' + b"x" * 80_000_000,
        "lying.parquet": b"PAR1" + bytes(20) + struct.pack("<I", 2**31) + b"PAR1",
    }
    for name, data in bombs.items():
        file = tmp_path / name
        file.write_bytes(data)
        status, output = told("data", str(file))
        assert status != 0, name
        assert output.strip()
        assert "Traceback" not in output


@pytest.mark.parametrize(
    "name", ["events.jsonl", "runner.log", "commands.jsonl", "runner.lock", "notes.jsonl", "checkpoints"]
)
def test_a_run_folder_with_links_is_neither_run_nor_written_to(name: str, tmp_path: Path) -> None:
    folder = write_run("run-aaaa", [])
    outside = tmp_path / ".bashrc"
    outside.write_text("")
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(outside)
    with pytest.raises(SftuiError, match=f"{name} leads to another place"):
        start_run(folder)
    with pytest.raises(SftuiError, match="leads to another place"), folder.locked():
        pass
    with pytest.raises(SftuiError, match="leads to another place"):
        add_note(folder, "$(touch canary)")
    with pytest.raises(SftuiError):
        send(folder, "stop")
    assert outside.read_text() == ""


@pytest.mark.parametrize("name", ["/dev/zero", "../../outside", "/etc/passwd", "folder"])
def test_a_manifest_that_names_what_is_not_the_checkpoints_own_is_refused(name: str, tmp_path: Path) -> None:
    checkpoint = RunFolder(tmp_path).checkpoints / "checkpoint-3"
    (checkpoint / "folder").mkdir(parents=True)
    (tmp_path / "outside").write_text("")
    (checkpoint / MANIFEST).write_text(json.dumps({"files": {name: {"size": 0, "sha256": "0" * 64}}}))
    damage = find_damage(checkpoint)
    assert damage is not None
    assert "no file of its own" in str(damage)


def test_times_and_figures_that_no_run_has_do_no_harm(tmp_path: Path) -> None:
    folder = write_run("run-aaaa", begin("run-aaaa"))
    with folder.journal_file.open("a") as file:
        for odd in (1e300, -1, "nan", "inf", "-inf"):
            file.write(json.dumps({"seq": 90, "time": odd, "type": "PhaseStarted", "phase": "saving"}) + "\n")
            ended = {"type": "RunFinished", "step": 1, "result": "adapter", "seconds": odd}
            file.write(json.dumps({"seq": 91, "time": 1.0, **ended}) + "\n")
    (folder.path / "notes.jsonl").write_text('{"time": 1e300, "text": "late"}\n{"time": 1, "text": "early"}\n')
    assert told("runs")[0] == 0
    assert told("attach", "run-aaaa")[0] == 0
    status, output = told("note", "run-aaaa")
    assert status == 0
    assert "early" in output
    assert "late" not in output


def test_the_folder_of_a_run_and_its_files_are_for_its_owner_alone(tmp_path: Path) -> None:
    from core.runs.folder import create_run
    from core.spec.build import build_spec

    folder = create_run(build_spec({"model_name_or_path": "m", "datasets": [{"path": "d"}]}), {"plan": 1})
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.path.iterdir()} == {0o600}
