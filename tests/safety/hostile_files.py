"""Files that would leave a mark, a canary, if anything in them ran."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

from tests.model_files import LLAMA, write_model, write_safetensors


class Mark:
    """Unpickled without care, it makes the canary."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self._canary), "w")


def pickled(canary: Path) -> bytes:
    """A plain pickle, as old versions of torch wrote them."""
    return pickle.dumps({"weight": Mark(canary)}, protocol=2)


def saved_by_torch(canary: Path) -> bytes:
    """The same in the form that torch.save writes today."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(canary))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def marking_code(canary: Path) -> str:
    """A Python file that makes the canary when it is imported."""
    return f"open({str(canary)!r}, 'w')\nclass Mine: pass\n"


def escaping_templates(canary: Path) -> dict[str, str]:
    """Chat templates that reach for more than a conversation, by what they try."""
    command, opened = f"touch {canary}", f"['__builtins__']['open']('{canary}', 'w')"
    return {
        "globals of a function": "{{ cycler.__init__.__globals__.os.system('" + command + "') }}",
        "globals by a filter": "{{ (lipsum|attr('__globals__'))['os'].popen('" + command + "').read() }}",
        "subclasses": "{% for c in ''.__class__.__mro__[1].__subclasses__() %}{% if c.__name__ == 'Popen' %}"
        "{{ c('" + command + "', shell=True) }}{% endif %}{% endfor %}",
        "a format string": "{{ '{0.append.__self__.__class__.__init__.__globals__}'.format(messages) }}",
        "a function that it is given": "{{ raise_exception.__globals__" + opened + " }}",
        "the time": "{{ strftime_now.__globals__" + opened + " }}",
        "a changed row": "{{ messages.clear() }}",
        "another file": "{% include '/etc/passwd' %}",
    }


def llama(folder: Path, **config: Any) -> Path:
    """A model's folder that is in order, but for what is given."""
    write_model(folder, **({"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | config))
    write_safetensors(folder / "model.safetensors", LLAMA)
    return folder


def hostile_models(home: Path, canary: Path) -> dict[str, Path]:
    """Folders of models, by what is wrong with them; each is refused with these words in the reason."""
    found: dict[str, Path] = {}

    def make(words: str, **config: Any) -> Path:
        found[words] = llama(home / f"model-{len(found)}", **config)
        return found[words]

    for name, data in (("pytorch_model.bin", pickled(canary)), ("pytorch_model.bin", saved_by_torch(canary))):
        folder = make(f"pickle{len(found)}")
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(data)
    code = marking_code(canary)
    folder = make("its own code", model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"})
    (folder / "mine.py").write_text(code)
    make("own code", model_type="mine", auto_map={"AutoConfig": "evil/repository--mine.Mine"})
    make("cannot be found", model_type="mine", auto_map={"AutoConfig": "../../evil.Mine"})
    for shard in ("../secret.safetensors", "/etc/passwd", "a/../../b"):
        folder = make(f"unsafe{len(found)}")
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    folder = make("An adapter")
    (folder / "config.json").unlink()
    adapter = {"base_model_name_or_path": "../../evil", "auto_mapping": {"parent_library": "mine"}, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "mine.py").write_text(code)
    return found
