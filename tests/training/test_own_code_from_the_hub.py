"""A model of the hub with its own code: refused, allowed at its commit, fetched, and then trained."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models import download
from core.models.checkpoint_files import read_config
from core.models.download import Download
from core.models.remote_code import allow, find_remote_code
from core.runs import events
from tests.hub_server import Hub, running_hub
from tests.training.runs import make_run
from tests.training.test_loading import failure
from tests.training.test_worker import only, train


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0.01)
    with running_hub(own_home, monkeypatch) as running:
        yield running


def test_it_is_trained_once_its_code_is_allowed_and_fetched(
    hub: Hub, tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir() if path.is_file()}
    auto_map = {"AutoConfig": "configuration_far.FarConfig", "AutoModelForCausalLM": "modeling_far.FarModel"}
    changed = {"model_type": "far_llama", "architectures": ["FarModel"], "auto_map": auto_map}
    files["config.json"] = json.dumps({**json.loads(files["config.json"]), **changed}).encode()
    files["configuration_far.py"] = (
        b"from transformers import LlamaConfig\nclass FarConfig(LlamaConfig):\n    model_type = 'far_llama'\n"
    )
    files["modeling_far.py"] = (
        b"from transformers import LlamaForCausalLM\n"
        b"from .configuration_far import FarConfig\n"
        b"from .marks import leave_mark\n"
        b"leave_mark()\n"
        b"class FarModel(LlamaForCausalLM):\n    config_class = FarConfig\n"
    )
    files["marks.py"] = f"from pathlib import Path\ndef leave_mark():\n    Path({str(canary)!r}).touch()\n".encode()
    commit = hub.add("org/far", files).refs["main"]

    folder = Download("org/far").run()
    assert failure(Path("org/far"), rows).title == "This model runs its own code"
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    allow(remote)
    assert failure(Path("org/far"), rows).title == "The model's code is missing"
    assert not canary.exists()
    Download("org/far", commit).run()
    assert only(train(make_run(Path("org/far"), rows)), events.RunFinished).step == 3
    assert canary.exists()
