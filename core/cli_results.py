"""The commands that use what a run has made: chat with it, export it."""

import argparse
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from core.errors import SftuiError
from core.text import human_bytes, safe

if TYPE_CHECKING:
    from core.results.asking import MeasureProgress, Opened, Phase, ResultDesk, Said, Sampling
    from core.results.exporting import ExportProgress

_HELP = "/base asks the base model next, /both all; /reset begins anew; /seed N; /quit leaves. Ctrl-C stops an answer."


def add_result_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these commands; `command` makes a parser of a name, an action and a help."""
    chat = command("chat", _chat, "Talk with what a run has made; with --prompt, ask once.")
    chat.add_argument("run")
    chat.add_argument("--prompt", help="ask this and leave; - reads it from standard input")
    chat.add_argument("--system", help="what stands before the conversation as its system message")
    chat.add_argument("--base", action="store_true", help="ask the model as it was before the run")
    chat.add_argument("--both", action="store_true", help="ask the base too, and first")
    chat.add_argument("--checkpoint", type=int, metavar="STEP", help="a checkpoint in place of the result")
    chat.add_argument("--beside", metavar="RUN", help="ask what this run has made too, on the same base if it can")
    chat.add_argument("--beside-checkpoint", type=int, metavar="STEP", help="a checkpoint of that one")
    chat.add_argument("--device", help="auto, cpu, or a GPU's index, in place of the run's own")
    chat.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest tokens")
    chat.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest tokens that make up this share")
    chat.add_argument("--top-k", type=int, default=0, help="draw from so many likeliest tokens; 0 is all")
    chat.add_argument("--max-new-tokens", type=int, default=512, help="tokens of an answer at most")
    chat.add_argument("--seed", type=int, default=42, help="of drawing")
    _add_export(command)
    chat.add_argument("--measure", type=int, metavar="ROWS", help="measure all on so many held-out rows, and leave")


def _add_export(command: Callable[..., argparse.ArgumentParser]) -> None:
    from core.results.exporting import KINDS

    export = command("export", _export, "Take what a run has made elsewhere.")
    export.add_argument("run")
    kinds = export.add_mutually_exclusive_group(required=True)
    places = {"gguf": "FILE", "push": "OWNER/NAME"}
    for kind, help in KINDS.items():
        kinds.add_argument(f"--{kind}", metavar=places.get(kind, "DIR"), help=f"{help[0].lower()}{help[1:]}")
    export.add_argument("--checkpoint", type=int, metavar="STEP", help="a checkpoint in place of the result")
    export.add_argument("--force", action="store_true", help="replace an earlier export there")
    export.add_argument("--base-id", metavar="OWNER/NAME", help="what the base model is called on the hub")
    export.add_argument("--no-compare", action="store_true", help="do not hold a merged model against the adapter")
    export.add_argument("--device", help="auto, cpu, or a GPU's index, to compare on in place of the run's own")
    export.add_argument("--llama-cpp", metavar="DIR", help="llama.cpp's sources, for --gguf ($LLAMA_CPP)")
    export.add_argument("--gguf-type", default="bf16", help="bf16, f16, f32 or q8_0")
    export.add_argument("--public", action="store_true", help="let everybody see a repository that --push makes")


def _export(options: argparse.Namespace) -> int:
    from core.results.exporting import KINDS, ExportRequest, export, line_of
    from core.runs.folder import find_run

    kind = next(kind for kind in KINDS if getattr(options, kind) is not None)
    request = ExportRequest(
        kind=kind,
        target=getattr(options, kind),
        step=options.checkpoint,
        force=options.force,
        base_id=options.base_id,
        compare=not options.no_compare,
        llama_cpp=options.llama_cpp,
        gguf_type=options.gguf_type,
        public=options.public,
        device=options.device,
    )
    hear = _tell_steps()
    try:
        made = export(find_run(options.run), request, (lambda _: None) if options.json else hear)
    finally:
        if sys.stderr.isatty() and not options.json:
            sys.stderr.write("\r\x1b[K")
    if options.json:
        print(line_of(made))
        return 0
    print(f"{safe(made.path)}  {human_bytes(made.size_bytes)}")
    for name, words in made.facts:
        print(f"  {safe(name)}: {safe(words)}")
    return 0


def _tell_steps() -> "Callable[[ExportProgress], None]":
    hear = _tell_phases()

    def tell(progress: "ExportProgress") -> None:
        from core.results.asking import Phase

        hear(Phase(progress.step, progress.done, progress.total))

    return tell


def _chat(options: argparse.Namespace) -> int:
    from core.results.asking import ResultDesk, Sampling
    from core.results.result import find_result, last_result
    from core.runs.folder import find_run
    from core.runs.launch import WarmRunner

    sampling = Sampling(options.temperature, options.top_p, options.top_k, options.max_new_tokens, options.seed)
    if problem := sampling.problem():
        raise SftuiError("Wrong use", problem)
    if options.json and options.prompt is None and options.measure is None:
        raise SftuiError("Wrong use", "--json answers one prompt.", "Give it: --prompt TEXT")
    if options.beside_checkpoint is not None and options.beside is None:
        raise SftuiError("Wrong use", "--beside-checkpoint is one of the run that --beside names.")
    result = find_result(find_run(options.run), options.checkpoint)
    # Said before a model is loaded.
    other = last_result(find_run(options.beside), options.beside_checkpoint) if options.beside is not None else None
    desk = ResultDesk(WarmRunner.start(options.device or _wish(result.run)))
    try:
        opened = desk.open(result.run, options.checkpoint, _tell_phases(), device=options.device)
        _introduce(opened, result.run.id)
        results: tuple[str, ...] = (result.name,)
        if other is not None:
            opened = desk.add(other.run, options.beside_checkpoint, _tell_phases())
            results = (result.name, opened.sides[-1])
            _introduce(opened, f"{result.run.id} and {opened.sides[-1]}")
        chat = _Chat(desk, opened, results, sampling, options.system)
        if options.measure is not None:
            return chat.measure(options.measure, as_json=options.json)
        if options.prompt is not None:
            prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
            return chat.ask_once(prompt, _sides(options, results), as_json=options.json)
        return chat.go_on(_sides(options, results))
    finally:
        desk.close()


def _wish(run: Any) -> str:
    section = run.spec_values().get("sftui")
    return str(section.get("device", "auto")) if isinstance(section, dict) else "auto"


def _sides(options: argparse.Namespace, results: tuple[str, ...]) -> tuple[str, ...]:
    from core.results.asking import BASE

    if options.both:
        return (BASE, *results)
    return (BASE,) if options.base else results


def _tell_phases() -> "Callable[[Phase], None]":
    """Say each phase once, on standard error; on a terminal how far it is too, over itself."""
    on_terminal = sys.stderr.isatty()
    last = ""

    def hear(phase: "Phase") -> None:
        nonlocal last
        share = f" {phase.done / phase.total:.0%}" if phase.total else ""
        line = f"{phase.name}{share} …"
        if on_terminal:
            sys.stderr.write(f"\r\x1b[K{safe(line)}")
        elif phase.name != last:
            sys.stderr.write(f"{safe(phase.name)} …\n")
        last = phase.name
        sys.stderr.flush()

    return hear


def _introduce(opened: "Opened", name: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    stored = "" if opened.quantization == "none" else f"{opened.quantization}, "
    sys.stderr.write(safe(f"{name} on {opened.device}, {stored}{opened.dtype}") + "\n")
    for title, message in opened.notices:
        sys.stderr.write(safe(f"{title}: {message}") + "\n")


@dataclass
class _Chat:
    """A conversation with one or more sides, each of which remembers its own answers."""

    desk: "ResultDesk"
    opened: "Opened"
    results: tuple[str, ...]
    sampling: "Sampling"
    system: str | None

    def __post_init__(self) -> None:
        self._turns: dict[str, list[dict[str, str]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        self._turns = {side: list(first) for side in self.opened.sides}

    def ask_once(self, prompt: str, sides: tuple[str, ...], *, as_json: bool) -> int:
        """Ask, and print the answers. Returns the exit status."""
        told = []
        interrupted = False
        for side in sides:
            with self._interruptible() as cancelled:
                said = self._say(side, prompt, quiet=as_json, named=len(sides) > 1)
            told.append({"side": side, **dataclasses.asdict(said)})
            interrupted = interrupted or cancelled.is_set()
        if as_json:
            print(json.dumps({"prompt": prompt, "answers": told}))
        return 128 + signal.SIGINT if interrupted else 0

    def go_on(self, sides: tuple[str, ...]) -> int:
        """Take line after line from the terminal until its end. Returns the exit status."""
        from core.results.asking import BASE

        print(_HELP)
        while True:
            try:
                line = input(f"{'+'.join(sides)}> ").strip()
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                continue
            word, _, rest = line.partition(" ")
            match word:
                case "":
                    continue
                case "/quit" | "/exit":
                    return 0
                case "/reset":
                    self.reset()
                    print("begun anew")
                case "/base":
                    sides = self.results if sides == (BASE,) else (BASE,)
                case "/both":
                    sides = self.results if sides == (BASE, *self.results) else (BASE, *self.results)
                case "/seed" if rest.isdecimal():
                    self.sampling = dataclasses.replace(self.sampling, seed=int(rest))
                case "/help" | "/?":
                    print(_HELP)
                case _ if word.startswith("/") and "/" not in word[1:]:
                    print(f"{safe(word)} is none of the commands. {_HELP}")
                case _:
                    self._answer_all(line, sides)

    def measure(self, rows: int, *, as_json: bool) -> int:
        """Measure the base and the results, and print the figures. Returns the exit status."""

        def hear(progress: "MeasureProgress") -> None:
            if sys.stderr.isatty():
                words = f"{progress.side}: {progress.what}, {progress.done} of {progress.total}"
                sys.stderr.write(f"\r\x1b[K{safe(words)}")

        with self._interruptible() as cancelled:
            found = self.desk.measure((self.opened.sides[0], *self.results), rows, hear)
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        if as_json:
            print(json.dumps({side: dataclasses.asdict(figures) for side, figures in found.items()}))
        else:
            width = max(14, *(len(safe(side)) for side in found))
            for side, figures in found.items():
                perplexity = "n/a" if figures.perplexity is None else f"{figures.perplexity:.4g}"
                accuracy = "n/a" if figures.token_accuracy is None else f"{figures.token_accuracy:.1%}"
                print(
                    f"{safe(side):{width}} perplexity {perplexity:>8}   token accuracy {accuracy:>7}   "
                    f"exact {figures.exact:,} of {figures.prompts:,}   ({figures.rows:,} rows)"
                )
        return 128 + signal.SIGINT if cancelled.is_set() else 0

    def _answer_all(self, line: str, sides: tuple[str, ...]) -> None:
        for side in sides:
            try:
                with self._interruptible():
                    self._say(side, line, quiet=False, named=len(sides) > 1)
            except SftuiError as error:
                print(safe(f"{error.title}: {error.message} {error.hint}"))

    def _say(self, side: str, line: str, *, quiet: bool, named: bool) -> "Said":
        turns = [*self._turns[side], {"role": "user", "content": line}]
        on_terminal = sys.stdout.isatty()

        def hear(text: str) -> None:
            if not quiet:
                sys.stdout.write(safe(text, keep_newlines=True) if on_terminal else text)
                sys.stdout.flush()

        if named and not quiet:
            print(f"[{safe(side)}]")
        said = self.desk.chat(side, turns if self.opened.speaks_turns else line, self.sampling, hear)
        self._turns[side] = [*turns, {"role": "assistant", "content": said.text}]
        if not quiet:
            print({"stopped": " (stopped)", "length": " (cut at its longest)"}.get(said.end, ""))
        return said

    @contextmanager
    def _interruptible(self) -> Iterator[threading.Event]:
        """Ctrl-C ends what is being said, and not the program."""
        cancelled = threading.Event()

        def cancel(_number: int, _frame: FrameType | None) -> None:
            cancelled.set()
            # Not from within a signal handler: it may have come while a line was written to the process.
            threading.Thread(target=self.desk.cancel, daemon=True).start()

        before = signal.signal(signal.SIGINT, cancel)
        try:
            yield cancelled
        finally:
            signal.signal(signal.SIGINT, before)
