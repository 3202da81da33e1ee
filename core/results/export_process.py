"""The process that exports: python -m core.results.export_process RUN_FOLDER REQUEST

It prints a line for each step, and as its last one what it made or why not; see core.results.exporting.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.diagnosis import diagnose
from core.errors import SftuiError
from core.models.checkpoint_files import resolve_model_folder
from core.paths import cache_home
from core.results import gguf
from core.results.adapter_export import adapter_bytes, write_adapter
from core.results.beside import MARK, refuse_existing, size_of, written_beside
from core.results.exporting import Exported, ExportProgress, ExportRequest, Outcome, line_of, request_from, where
from core.results.result import Result, check_result, find_result
from core.runs.folder import RunFolder
from core.spec.run_spec import RunSpec
from core.spec.yaml_file import read_spec

_TELL_SECONDS = 0.2
_RENDERED_BYTES = 1 << 20
Facts = tuple[tuple[str, str], ...]


class Exporter:
    """One export, from its beginning to its end."""

    def __init__(self, run: RunFolder, request: ExportRequest, say: Callable[[ExportProgress], object]) -> None:
        """`say` is told how far it is, a few times a second at most. Raises SftuiError where the run has no spec."""
        self._run, self._request, self._say = run, request, say
        self._told_at, self._told = 0.0, ""
        self._spec: RunSpec = read_spec(run.spec_file)

    def do(self) -> Exported:
        """Export. Raises SftuiError."""
        match self._request.kind:
            case "trl":
                return self._trl()
            case "push":
                return self._push()
            case "gguf":
                return self._gguf()
            case "merged":
                target = where(self._request.target)
                refuse_existing(target, force=self._request.force, is_file=False)
                facts = self._merged(target)
            case _:
                target = where(self._request.target)
                facts = self._adapter(target)
        return Exported(self._request.kind, str(target), size_of(target), facts)

    def tell(self, progress: ExportProgress) -> None:
        """Say how far it is."""
        now = time.monotonic()
        whole = progress.done == progress.total
        if progress.step == self._told and not whole and now - self._told_at < _TELL_SECONDS:
            return
        self._told_at, self._told = now, progress.step
        self._say(progress)

    def _result(self) -> Result:
        result = find_result(self._run, self._request.step)
        check_result(result, self._spec)
        return result

    def _mark(self, kind: str, *more: object) -> dict[str, object]:
        return {"kind": kind, "run": self._run.id, "checkpoint": self._request.step, "made_from": list(more)}

    def _adapter(self, target: Path) -> Facts:
        result = self._result()
        base = _base_folder(self._spec)
        with written_beside(target, adapter_bytes(result), self._mark("adapter"), force=self._request.force) as beside:
            self.tell(ExportProgress("writing the adapter"))
            return write_adapter(beside, result, self._spec, base, self._request)

    def _merged(self, target: Path, *, compare: bool | None = None) -> Facts:
        self.tell(ExportProgress("importing torch, transformers, peft"))
        from core.training.libraries import import_libraries

        import_libraries()
        from core.results.difference import difference
        from core.results.merged_export import MergedExport

        result = self._result()
        self.tell(ExportProgress("reading what is to be merged"))
        merged = MergedExport(result, self._spec)
        mark = self._mark("merged", merged.fingerprint(), str(merged.dtype))
        with written_beside(target, merged.size_bytes + _RENDERED_BYTES, mark, force=self._request.force) as beside:
            merged.write(beside, self._request, self.tell)
            facts: Facts = ()
            if self._request.compare if compare is None else compare:
                found = difference(result, beside, merged.size_bytes, self._request.device, self.tell)
                name = "merged against the adapter on its base" if result.kind == "adapter" else "against the run's own"
                facts = ((name, f"{found}"),)
            merged.write_card(beside, self._request, facts)
        return facts

    def _gguf(self) -> Exported:
        target = where(self._request.target)
        if target.suffix != ".gguf":
            target = target.with_name(f"{target.name}.gguf")
        refuse_existing(target, force=self._request.force, is_file=True)
        converter = gguf.find_converter(self._request.llama_cpp)
        model_file = target.with_suffix(".Modelfile")
        merged = target.with_name(f"{target.name}.merged")
        facts = self._merged(merged)
        try:
            needed = size_of(merged) * (2 if self._request.gguf_type == "f32" else 1)
            with written_beside(
                target, needed, self._mark("gguf"), force=self._request.force, file=target.name
            ) as beside:
                self.tell(ExportProgress("converting with llama.cpp", 0, 0))
                gguf.convert(converter, merged, beside / target.name, self._request.gguf_type)
                self.tell(ExportProgress("reading the file again"))
                from core.results.trained_template import TrainedTemplate

                trained = TrainedTemplate(merged)
                head = gguf.check(beside / target.name, trained.text, trained.end_id)
                render = trained.render if trained.text is not None else None
                text, words = gguf.modelfile(target.name, render, trained.stops)
            model_file.write_text(text, encoding="utf-8")
        finally:
            shutil.rmtree(merged, ignore_errors=True)
        told = (
            ("architecture", head.architecture),
            ("chat template", "the one that was trained with" if trained.text else "none"),
            ("Modelfile", f"{model_file}: ollama create NAME -f {model_file.name}"),
            ("its template", words),
        )
        return Exported("gguf", str(target), target.stat().st_size, (*told, *facts))

    def _trl(self) -> Exported:
        self.tell(ExportProgress("importing torch, transformers, trl"))
        from core.training.libraries import import_libraries

        import_libraries()
        from core.results.trl_export import TrlExport

        target = where(self._request.target)
        refuse_existing(target, force=self._request.force, is_file=False)
        with contextlib.closing(TrlExport(self._run, self.tell)) as made:
            needed = made.size_bytes + _RENDERED_BYTES
            with written_beside(target, needed, self._mark("trl"), force=self._request.force) as beside:
                facts = made.write(beside, self._request, self.tell)
        return Exported("trl", str(target), size_of(target), facts)

    def _push(self) -> Exported:
        from core.results.push import push

        result = self._result()
        with _room_of_our_own() as folder:
            target = folder / "export"
            facts = self._adapter(target) if result.kind == "adapter" else self._merged(target, compare=False)
            size = size_of(target)
            (target / MARK).unlink(missing_ok=True)
            self.tell(ExportProgress("uploading", 0, 0))
            page = push(target, self._request.target, public=self._request.public)
        seen = "everybody" if self._request.public else "you alone, unless it was public before"
        return Exported("push", page, size, (*facts, ("seen by", seen)))


@contextmanager
def _room_of_our_own() -> Iterator[Path]:
    home = cache_home() / "exports"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        yield Path(folder)


def _base_folder(spec: RunSpec) -> Path:
    """The base model's folder; only its name where it is not here any more."""
    try:
        return resolve_model_folder(spec.model_name_or_path, spec.model_revision)
    except SftuiError:
        return Path(spec.model_name_or_path)


def main() -> int:
    """Do the export that the command line asks for."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m core.results.export_process RUN_FOLDER REQUEST\n")
        return 2
    # Ctrl-C is for whoever started us, and tells us to end by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print is not for whoever reads our lines.
    output = os.dup(1)
    os.dup2(2, 1)

    def say(outcome: Outcome) -> None:
        os.write(output, line_of(outcome).encode() + b"\n")

    try:
        say(Exporter(RunFolder(Path(sys.argv[1])), request_from(sys.argv[2]), say).do())
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it was, whoever waits must hear of it
        found = diagnose(error)
        if not isinstance(error, SftuiError):
            traceback.print_exception(error)
        say(SftuiError(found.title, found.message, found.hint))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
