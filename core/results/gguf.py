"""GGUF through llama.cpp's own converter, where the user has it, with a Modelfile for Ollama; read again when made."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import SftuiError
from core.paths import expand
from core.results.gguf_file import GgufHead, read_gguf
from core.text import safe, shorten

SCRIPT = "convert_hf_to_gguf.py"
TYPES = ("bf16", "f16", "f32", "q8_0")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
Messages = Sequence[dict[str, str]]


def find_converter(llama_cpp: str | None) -> Path:
    """llama.cpp's converter: in the folder that is named, in $LLAMA_CPP, or on $PATH. Raises SftuiError."""
    named = llama_cpp or os.environ.get("LLAMA_CPP")
    if named:
        folder = expand(named)
        script = folder if folder.name == SCRIPT else folder / SCRIPT
        if script.is_file():
            return script.absolute()
        raise SftuiError(
            "llama.cpp is not there", f"{safe(str(folder))} has no {SCRIPT}.", "Name the folder of its sources."
        )
    found = shutil.which(SCRIPT)
    if found:
        return Path(found)
    raise SftuiError(
        "llama.cpp is not here",
        f"GGUF is written by its converter, {SCRIPT}, which is neither in $LLAMA_CPP nor on $PATH.",
        "git clone https://github.com/ggml-org/llama.cpp, then name the folder: --llama-cpp DIR",
    )


def convert(converter: Path, model: Path, target: Path, kind: str) -> None:
    """Run the converter. Raises SftuiError with what it said where it fails."""
    if kind not in TYPES:
        raise SftuiError(
            "No such type", f"{kind!r} is none of {', '.join(TYPES)}.", "llama-quantize makes smaller ones."
        )
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    # The folder that its own libraries are in must be found by it.
    environment.pop("PYTHONSAFEPATH", None)
    with tempfile.TemporaryFile() as output:
        status = subprocess.run(
            [sys.executable, str(converter), str(model), "--outfile", str(target), "--outtype", kind],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
        output.seek(0)
        said = [line for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if status != 0 or not target.is_file():
        last = shorten(safe(said[-1]), 400) if said else "it said nothing"
        hint = "Install what it needs (pip install -r requirements.txt in its folder), or take a newer llama.cpp."
        raise SftuiError("llama.cpp's converter failed", f"Status {status}: {last}", hint)


def check(file: Path, template: str | None, end_token: int | None) -> GgufHead:
    """Read the file's head again. Raises SftuiError where it has another chat template or end than was trained."""
    head = read_gguf(file)
    if not head.tensors:
        raise SftuiError("The GGUF file is empty", f"{safe(str(file))} has no tensors.", "Convert it again.")
    if template is not None and (head.chat_template or "").strip() != template.strip():
        raise SftuiError(
            "The GGUF file has another chat template",
            "What the converter wrote is not what was trained with.",
            "Take a newer llama.cpp.",
        )
    if end_token is not None and head.end_token not in (None, end_token):
        raise SftuiError(
            "The GGUF file ends answers otherwise",
            f"Its end token is {head.end_token}, and {end_token} was trained.",
            "Take a newer llama.cpp.",
        )
    return head


def modelfile(file: str, render: Callable[[Messages, bool], str] | None, stops: Sequence[str]) -> tuple[str, str]:
    """A Modelfile for Ollama, and in words what it does about the chat template.

    Ollama's templates are written in another language than those of models. `render` (messages, whether an answer
    follows) is taken apart and put together again; where that gives the very same text it is written down.
    """
    lines = [f"FROM ./{file}"]
    template = _go_template(render) if render is not None else None
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
        words = "the chat template, put into Ollama's own language and tried out"
    elif render is not None:
        words = "none: the chat template does not fit Ollama's language; it takes the one in the file if it knows it"
    else:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
        words = "plain text"
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if '"' not in stop and "\n" not in stop]
    return "\n".join(lines) + "\n", words


_S, _U, _A = "␞system␞", "␞user␞", "␞answer␞"


def _go_template(render: Callable[[Messages, bool], str]) -> str | None:
    """The template as parts around contents, if all that it writes is made of such parts."""
    system, user, answer = (
        {"role": role, "content": content}
        for role, content in zip(("system", "user", "assistant"), (_S, _U, _A), strict=True)
    )
    try:
        asked = render([user], True)
        before_user, _, after_user = asked.partition(_U)
        told = render([user, answer], False)
        opening = after_user
        after_answer = told.partition(_A)[2]
        with_system = render([system, user], True)
        before_system, found, rest = with_system.partition(_S)
        between = rest.partition(_U)[0]
        twice = render([user, answer, user, answer], False)
        again = twice.partition(_A)[2].partition(_U)[0]
    except Exception:  # noqa: BLE001 - a template is a program: what it refuses, it cannot be taken apart by
        return None
    # What a turn of the user begins with, after a system message and after an answer.
    if not again.startswith(after_answer) or not found:
        return None
    turn = again.removeprefix(after_answer)
    if not between.endswith(turn) or not before_user.endswith(turn):
        return None
    start, tail = before_user.removesuffix(turn), between.removesuffix(turn)
    pieces = (start, before_system, tail, turn, opening, after_answer)
    if any('"""' in piece or "{{" in piece for piece in pieces):
        return None
    whole = start + turn + _U + opening + _A + after_answer + turn + _U + opening + _A + after_answer
    if whole != twice or before_system + _S + tail + turn + _U + opening != with_system:
        return None
    return (
        f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{tail}{{{{ else }}}}{start}{{{{ end }}}}"
        f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{turn}{{{{ .Content }}}}{opening}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{after_answer}{{{{ end }}}}{{{{ end }}}}'
    )
