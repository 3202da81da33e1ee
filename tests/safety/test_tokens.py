"""A token, as a canary: whatever sftui does with it, it is written nowhere, shown nowhere, and nobody can connect."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli import main
from core.runs import events
from core.runs.folder import RunFolder, all_runs
from tests.hub_server import Hub, running_hub
from tests.terminal.terminal import Terminal
from tests.tiny import chat_rows
from tests.training.runs import events_of, wait_for, wait_for_end
from tests.training.test_worker import only

TOKENS = ("hf_CanaryOfTheEnvironment6660", "hf_CanaryOfTheFile6660")
OF_ENVIRONMENT, OF_FILE = TOKENS
LISTENS = "0A"


@pytest.fixture
def hub(own_home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a gated model, rows and a damaged model, and a user who is logged in twice over."""
    (own_home / "huggingface").mkdir(parents=True)
    (own_home / "huggingface" / "token").write_text(OF_FILE)
    monkeypatch.setenv("HF_TOKEN", OF_ENVIRONMENT)
    with running_hub(own_home, monkeypatch) as running:
        files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
        running.add("org/gated", files, gated="manual")
        running.add("org/damaged", files | {"config.json": files["config.json"].replace(b'"llama"', b'"qwen2"')})
        rows = "".join(json.dumps(row) + "\n" for row in chat_rows(12)).encode()
        running.add("datasets/org/rows", {"train.jsonl": rows})
        yield running


def assert_unseen(text: str | bytes, where: object) -> None:
    data = text.encode() if isinstance(text, str) else text
    for token in TOKENS:
        assert token.encode() not in data, f"{token} in {where}"


def assert_written_nowhere(home: Path) -> None:
    """Look into every file that is there, but that of the login."""
    files = [file for file in home.rglob("*") if file.is_file() and file.name != "token"]
    for file in files:
        assert_unseen(str(file), "a name")
        assert_unseen(file.read_bytes(), file)


def family_of(pid: int) -> list[int]:
    """A process and those that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family_of(int(child)))]


def assert_nothing_listens(pid: int) -> None:
    """Look at the sockets of a process and its children, and at what they were called with."""
    listening = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(FileNotFoundError):
            rows = [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
            listening |= {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENS or table.startswith("udp")}
    for one in family_of(pid):
        assert_unseen(Path(f"/proc/{one}/cmdline").read_bytes(), "the arguments of a process")
        for descriptor in Path(f"/proc/{one}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                assert str(descriptor.readlink()) not in listening


def told(*arguments: str) -> int:
    """A command's exit status; the token is in nothing that it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main(arguments)
    assert_unseen(output.getvalue(), arguments)
    return status


def started(spec: Path, *more: str) -> RunFolder:
    """A run that is started as a process of its own."""
    before = set(all_runs())
    assert told("run", str(spec), "--detach", *more) == 0
    (folder,) = set(all_runs()) - before
    return folder


def test_a_token_is_written_nowhere_and_nothing_listens(hub: Hub, tmp_path: Path) -> None:
    from core.models.download import Download

    for name in ("org/gated", "org/damaged"):
        Download(name).run()
    assert {request.authorization for request in hub.asked("org/gated")} >= {f"Bearer {OF_ENVIRONMENT}"}
    assert told("data", "org/rows") == 0
    assert told("data", "org/absent") == 2
    assert told("model", "org/gated", "--json") == 0
    hub.refuse(403, "rows", X_Error_Code="GatedRepo")
    assert told("data", "org/rows", "--split", "test") == 2
    hub.relent()

    spec = tmp_path / "spec.yaml"
    values = {
        "model_name_or_path": "org/gated", "datasets": [{"path": "org/rows"}], "use_peft": True, "max_steps": 200,
        "save_steps": 2, "save_strategy": "steps", "max_length": 96, "hub_token": OF_FILE,
        "sftui": {"device": "cpu", "name": "canary"},
    }  # fmt: skip
    spec.write_text(json.dumps(values))
    assert told("plan", str(spec), "--yaml") == 0
    folder, failing = started(spec), started(spec, "--set", "model_name_or_path=org/damaged")
    spec.unlink()
    state = wait_for(folder, lambda state: bool(state.checkpoints))
    assert state.outcome is None
    assert_nothing_listens(next(event.pid for event in events_of(folder) if isinstance(event, events.RunStarted)))
    assert told("stop", folder.id) == 0
    wait_for_end(folder)
    wait_for_end(failing)
    assert only(events_of(failing), events.RunFailed).traceback_file is not None
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert_written_nowhere(tmp_path)


def test_the_app_shows_no_token_and_listens_nowhere(hub: Hub, tmp_path: Path) -> None:
    draft = {"draft": {"model_name_or_path": "org/gated"}}
    with Terminal("tests.safety.shown", "model", json.dumps(draft), lines=60) as terminal:
        terminal.wait_for("1 Model")
        terminal.type("\x06gated")
        terminal.wait_until(lambda: bool(hub.asked("/api/models")), "a search")
        terminal.wait_for("gated: its terms")
        assert_nothing_listens(terminal.pid)
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert_unseen(terminal.output, "the screen")
    with Terminal("tests.safety.shown", "model", json.dumps(draft | {"defect": "x", "secret": OF_FILE})) as terminal:
        assert terminal.wait() == 1
    assert_unseen(terminal.output, "the screen")
    assert_written_nowhere(tmp_path)
