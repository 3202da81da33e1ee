"""`sftui plan --fit` gives the flags that make a run fit, and they do."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import starter
from core.cli import DOES_NOT_FIT, main
from core.cli_fit import describe_fit, fit_to_json
from core.devices.gpu import GpuReading
from core.memory.fit import Known, find_fit, with_changes
from core.models.architecture import detect
from core.spec.build import parse_value
from tests.unit.test_choose_device import gpu, reading
from tests.unit.test_fit import GB, GPU, effective, plans, spec


def test_its_flags_make_the_spec_that_it_found() -> None:
    asked = spec(activation_checkpointing=False, activation_offloading=True)
    found = find_fit(asked, plans(12 * GB, asked=[]), Known(detect(starter.MODEL), GPU))
    told = fit_to_json(found)
    assert told["verdict"] == "fits"
    assert told["missing_bytes"] == 0
    assert told["total_bytes"] < 12 * GB
    values: dict[str, Any] = {}
    for flag in told["flags"]:
        option, assignment = shlex.split(flag)
        name, _, value = assignment.partition("=")
        assert option == "--set"
        values[name] = parse_value(name, value)
    tuned = with_changes(asked, found.taken)
    assert tuned == asked.model_copy(update=values)
    assert effective(tuned) == effective(asked)
    json.dumps(told)


def test_an_argument_that_goes_is_turned_off_by_its_flag() -> None:
    asked = spec(activation_offloading=True)
    found = find_fit(asked, plans(300 * GB, asked=[]), Known(detect(starter.MODEL), GPU))
    assert "--set activation_offloading=false" in fit_to_json(found)["flags"]


def test_a_person_reads_the_changes_where_they_lead_and_what_is_missing() -> None:
    known = Known(detect(starter.MODEL), GPU)
    words = describe_fit(find_fit(spec(), plans(12 * GB, asked=[]), known))
    assert re.search(r"- Base model in 4 bit +−12\.\d GB  takes about \d+ % longer", words)
    assert "of 12.0 GB free: fits" in words
    assert "from published figures, not measured" in words
    assert "with     --set " in words
    words = describe_fit(find_fit(spec(), plans(3 * GB, asked=[]), known))
    assert re.search(r"missing  [\d,]+ MB, though this is the smallest", words)
    roomy = find_fit(spec(activation_checkpointing=False), plans(300 * GB, asked=[]), known)
    assert describe_fit(roomy) == "make it fast  it is as fast as this memory allows"


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_answers_with_a_plan_and_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, as_json: bool
) -> None:
    tiny: GpuReading = reading(gpu(0, 1000, total_bytes=24 * GB, name="NVIDIA L4"))

    class Monitor:
        def read(self) -> GpuReading:
            return tiny

        def close(self) -> None:
            pass

    monkeypatch.setattr("core.memory.plan.GpuMonitor", Monitor)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    arguments = ["plan", "starter", "--fit", "--set", "sftui.device=0", *(["--json"] if as_json else [])]
    assert main(arguments) == DOES_NOT_FIT
    said = capsys.readouterr().out
    if as_json:
        told = json.loads(said)["fit"]
        assert (told["goal"], told["verdict"]) == ("fit", "does_not_fit")
        assert told["missing_bytes"] > 0
    else:
        assert "though this is the smallest" in said
    tiny = replace(tiny, gpus=(replace(tiny.gpus[0], free_bytes=None),))
    main(arguments)
    said = capsys.readouterr().out
    assert "Whether it fits is not known" in (json.loads(said)["fit"]["problem"] if as_json else said)
