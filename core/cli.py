"""The command line. Every screen's work is a command here too, with `--json` for scripts."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from core.cli_compare import add_compare_commands
from core.cli_doctor import add_doctor_command
from core.cli_queue import add_queue_command
from core.cli_results import add_result_commands
from core.cli_runs import DONE, add_run_commands, complain, start
from core.errors import SftuiError
from core.text import safe
from core.version import version

OpenApp = Callable[..., int]
WRONG_USE, DOES_NOT_FIT = 2, 3


def main(arguments: Sequence[str] | None = None, open_app: OpenApp | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong use, 3 does not fit, 128 + signal.

    `open_app` opens the application; without it the commands that need it say so.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments and open_app is not None:
        return open_app()
    options = _parser().parse_args(arguments, argparse.Namespace(open_app=open_app))
    try:
        status = int(options.action(options))
        sys.stdout.flush()
        return status
    except SftuiError as error:
        complain(error, options)
        return WRONG_USE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does: what is left goes nowhere, also at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sftui", description="Fine-tune language models from a terminal.")
    parser.add_argument("--version", action="version", version=f"sftui {version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, action: Callable[..., int], help: str, *, with_json: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(action=action)
        if with_json:
            added.add_argument("--json", action="store_true", help="print JSON")
        return added

    demo = command("demo", _demo, "Train the built-in model on the built-in data, and compare its answers.")
    demo.add_argument("--headless", action="store_true", help="without the app: print progress and answers")

    run = command("run", _run, "Run a spec: a YAML file, or a preset (qlora, lora, full, starter).")
    run.add_argument("spec")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set an option (repeatable)")
    run.add_argument("--queue", action="store_true", help="wait until its device is free, behind those that wait too")
    run.add_argument("--detach", action="store_true", help="start it and leave")
    run.add_argument("--force", action="store_true", help="start it though it does not fit")
    run.add_argument("--probe", action="store_true", help="try two steps on the longest rows before, and tell the peak")
    run.add_argument("--allow", action="store_true", help="let what the spec names run here: on_finish, hub kernels")

    plan = command("plan", _plan, "What a spec costs in memory, part by part, and whether it fits.")
    plan.add_argument("spec")
    plan.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set an option (repeatable)")
    plan.add_argument("--exact", action="store_true", help="build the model's modules first, without weights: seconds")
    plan.add_argument("--simulate", action="store_true", help="go through two steps without weights first: 20 seconds")
    plan.add_argument("--fit", action="store_true", help="say what would make it fit, or faster where memory is left")
    plan.add_argument("--yaml", action="store_true", help="print the whole spec as YAML instead")

    model = command("model", _model, "What a model is, and how it is loaded.")
    model.add_argument("models", nargs="+", metavar="PATH_OR_ID")

    data = command("data", _data, "What a dataset is, and what is wrong with it.")
    data.add_argument("sources", nargs="+", metavar="SPEC_OR_FILE", help="files, folders, patterns, hub ids; or a spec")
    data.add_argument("--name", metavar="CONFIG", help="configuration of a dataset that has several")
    data.add_argument("--split", default="train", help="split of a folder or of a dataset of the hub")
    data.add_argument("--model", metavar="PATH_OR_ID", help="count tokens with this model's tokenizer: slower")

    add_run_commands(command)
    add_compare_commands(command)
    add_queue_command(command)
    add_result_commands(command)
    add_doctor_command(command)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from core.spec.presets import PRESETS

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not options.headless and not options.json and on_terminal and options.open_app is not None:
        return int(options.open_app(open_screen="review", draft_values=dict(PRESETS["starter"].values)))
    options.spec, options.set, options.detach, options.force = "starter", [], False, False
    options.queue = options.allow = options.probe = False
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from core.runs.folder import create_run
    from core.spec.problems import SpecError

    if options.probe:
        options.set.append("sftui.probe=true")
    plan, spec, _ = _read_plan(options)
    errors = tuple(problem for problem in plan.problems if problem.level == "error")
    for problem in plan.problems:
        if problem.level == "warning":
            sys.stderr.write(f"warning  {safe(str(problem))}\n")
    if errors:
        raise SpecError(errors)
    if plan.verdict == "does_not_fit" and not options.force:
        complain(SftuiError("Does not fit", f"{plan.verdict_reason}.", "Start it all the same with --force."), options)
        return DOES_NOT_FIT
    _ask_for_permissions(spec, options)
    return start(create_run(spec, plan.to_json()), options)


def _ask_for_permissions(spec: Any, options: argparse.Namespace) -> None:
    """Allow what was typed here, or is allowed here with --allow. Raises SpecError for what else the spec would run."""
    from core import permissions
    from core.spec.problems import Problem, SpecError

    typed = {assignment.partition("=")[0] for assignment in options.set}
    missing = permissions.missing(spec)
    refused = tuple(one for one in missing if not options.allow and one.field not in typed)
    if refused:
        fix = "If you trust it, start the run with --allow."
        raise SpecError(
            tuple(Problem(one.field, "error", f"would run {one}, which you have not allowed.", fix) for one in refused)
        )
    permissions.allow(missing)


def _read_plan(options: argparse.Namespace, *, exact: bool = False) -> tuple[Any, Any, Any]:
    """The plan, its spec, and what it was made from."""
    from core.memory.plan import read_facts
    from core.spec.build import parse_value
    from core.spec.problems import SpecError
    from core.spec.yaml_file import check_source

    overrides: dict[str, Any] = {}
    for assignment in options.set:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise SftuiError("Wrong use", f"--set {assignment}: there is no `=`.", "Write --set NAME=VALUE.")
        overrides[name] = parse_value(name, value)
    checked = check_source(options.spec, overrides)
    errors = tuple(problem for problem in checked.problems if problem.level == "error")
    if checked.spec is None or errors:
        raise SpecError(errors)
    if exact:
        _build_inventory(checked.spec)
    facts = read_facts(checked.spec)
    plan = facts.plan(checked.spec)
    return dataclasses.replace(plan, problems=(*checked.problems, *plan.problems)), checked.spec, facts


def _build_inventory(spec: Any) -> None:
    from core.devices.gpu import GpuMonitor
    from core.memory.plan import read_model
    from core.runs.launch import WarmRunner

    try:
        model = read_model(spec.model_name_or_path, spec.model_revision, spec.sftui.preference)
    except SftuiError:
        # The plan says so too.
        return
    monitor = GpuMonitor()
    on_gpu = bool(monitor.read().gpus) and spec.sftui.device != "cpu"
    monitor.close()
    if model.wants_inventory or model.wants_traces(on_gpu=on_gpu):
        warm = WarmRunner.start()
        try:
            what = {"folder": str(model.folder), "auto_class": model.architecture.auto_class}
            if model.wants_inventory:
                warm.ask({"ask": "inventory", **what})
            if model.architecture.stored_quantization is None:
                warm.ask({"ask": "layers", **what, "on_gpu": on_gpu})
        finally:
            warm.close()


def _plan(options: argparse.Namespace) -> int:
    from core.memory.plan import describe_plan
    from core.spec.yaml_file import to_yaml

    plan, spec, facts = _read_plan(options, exact=options.exact)
    if options.yaml:
        print(to_yaml(spec), end="")
        return DONE
    if options.simulate:
        from core.cli_simulate import simulate_here

        plan = simulate_here(spec, facts, plan)
    told, lines, verdict = plan.to_json(), [describe_plan(plan)], plan.verdict
    if options.fit:
        from core.cli_fit import describe_fit, fit_here, fit_to_json

        try:
            fit = fit_here(spec, facts, plan)
        except SftuiError as error:
            told["fit"] = {"problem": error.message}
            lines.append(f"make it fit  {error.message}")
        else:
            told["fit"] = fit_to_json(fit)
            lines.append(describe_fit(fit))
            verdict = fit.after.verdict
    print(json.dumps(told, indent=2) if options.json else safe("\n".join(lines), keep_newlines=True))
    if any(problem.level == "error" for problem in plan.problems):
        return WRONG_USE
    return DOES_NOT_FIT if verdict == "does_not_fit" else DONE


def _model(options: argparse.Namespace) -> int:
    from core.models.architecture import detect
    from core.models.checkpoint_files import read_tensors, resolve_model_folder

    status = DONE
    found: list[dict[str, Any]] = []
    for name in options.models:
        entry: dict[str, Any] = {"path": name}
        try:
            folder = resolve_model_folder(name, None)
            known = dataclasses.asdict(detect(folder))
            known["lora_target_modules"] = known.pop("lora_targets")
            entry = {"path": str(folder), **known}
            # What is wrong with the weights is among the problems already.
            read_tensors(folder)
        except SftuiError as error:
            status = WRONG_USE
            entry.setdefault("problems", [str(error)])
        found.append(entry)
    if options.json:
        print(json.dumps(found, indent=2))
        return status
    for entry in found:
        print(safe(entry.pop("path")))
        for key, value in entry.items():
            print(f"  {key.replace('_', ' '):22} {safe(str(value))}")
    return status


def _data(options: argparse.Namespace) -> int:
    from core.cli_data import show_data

    return DONE if show_data(options) else WRONG_USE


if __name__ == "__main__":
    sys.exit(main())
