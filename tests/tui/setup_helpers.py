"""What the stories about the set-up screens share: a machine, a tiny model, rows, and eyes."""

import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Static

from core.devices.gpu import GpuReading, GpuSnapshot
from core.devices.host import HostSnapshot
from tui_app.app import SftuiApp
from tui_app.draft import Draft
from tui_app.messages import MachineRead
from tui_app.widgets.spec_form import row_id

GB = 10**9
HOST = HostSnapshot(4, 0.0, 16 * GB, 4 * GB, 12 * GB, 100 * GB, "A processor")
NO_GPU = GpuReading((), None, "there is no NVIDIA driver")
_LAYERS, _HIDDEN, _VOCABULARY = 2, 64, 512
_KEYS = {"/": "slash", ".": "full_stop", " ": "space", ",": "comma", "-": "minus", "_": "underscore", "~": "tilde"}


def one_gpu(total: int = 80 * GB, free: int = 70 * GB, name: str = "NVIDIA H100 80GB") -> GpuReading:
    """A machine with one GPU, of which somebody else holds a part."""
    gpu = GpuSnapshot(0, "GPU-1", name, total, total - free, free, 3, 40, 90.0, 700.0, (9, 0), ())
    return GpuReading((gpu,), "570.1", None)


def make_model(folder: Path, *, hidden: int = _HIDDEN, chat_template: bool = True, **changes: Any) -> Path:
    """A Llama of a few thousand weights: config with changes, tokenizer files' names, safetensors full of zeros."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "tokenizer_config.json").write_text("{}")
    if chat_template:
        (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    shapes = {"model.embed_tokens.weight": [_VOCABULARY, hidden], "model.norm.weight": [hidden]}
    for layer in range(_LAYERS):
        block = f"model.layers.{layer}"
        for name, width in (("q_proj", hidden), ("k_proj", hidden // 2), ("v_proj", hidden // 2), ("o_proj", hidden)):
            shapes[f"{block}.self_attn.{name}.weight"] = [width, hidden]
        shapes[f"{block}.mlp.gate_proj.weight"] = [2 * hidden, hidden]
        shapes[f"{block}.mlp.up_proj.weight"] = [2 * hidden, hidden]
        shapes[f"{block}.mlp.down_proj.weight"] = [hidden, 2 * hidden]
        shapes[f"{block}.input_layernorm.weight"] = [hidden]
        shapes[f"{block}.post_attention_layernorm.weight"] = [hidden]
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    packed = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(packed)) + packed + bytes(end))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def make_rows(file: Path, count: int = 12, *, bad: dict[int, str] | None = None) -> Path:
    """A file of conversations; `bad` replaces lines (from 1) by other text."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Where is parcel {number}?"},
                    {"role": "assistant", "content": f"Parcel {number} is on its way."},
                ]
            }
        )
        for number in range(1, count + 1)
    ]
    for line, text in (bad or {}).items():
        lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")
    return file


class Watcher(SftuiApp):
    """The app, with a machine that the test decides on, and a record of what screens ask for."""

    def __init__(self, values: dict[str, Any], screen: str) -> None:
        super().__init__(draft_values=values, open_screen=screen, warm=False)
        self.asked: list[Message] = []

    def on_start_requested(self, message: Any) -> None:
        """Record it; no run is started here."""
        message.prevent_default()
        self.asked.append(message)

    @property
    def known(self) -> Draft:
        """The draft, which every set-up screen makes sure of."""
        assert self.draft is not None
        return self.draft


class _NoWatch:
    def __init__(self, target: object) -> None:
        pass

    def start(self) -> None:
        """Read nothing."""

    def stop(self) -> None:
        """There is nothing to stop."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no models and no machine but the test's own."""
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tui_app.app.MachineWatch", _NoWatch)
    return tmp_path


@asynccontextmanager
async def opened(
    screen: str,
    values: dict[str, Any] | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    gpus: GpuReading = NO_GPU,
) -> AsyncIterator[tuple[Watcher, Pilot[int]]]:
    """The app on one of its steps, its devices read."""
    app = Watcher(dict(values or {}), screen)
    app.animation_level = "none"
    async with app.run_test(size=size, notifications=True) as pilot:
        app.post_message(MachineRead(gpus, HOST))
        await wait_for(pilot, lambda: app.draft is not None and app.draft.gpus is not None)
        await wait_for(pilot, lambda: not app.known.needs_model and not app.known.needs_data)
        yield app, pilot


async def wait_for(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Let the app work until the condition holds; fail if it never does."""
    for _ in range(2000):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.03)
    raise AssertionError("It never happened. The screen says:\n" + seen(pilot.app))


async def sees(pilot: Pilot[int], text: str) -> None:
    """Wait until the text is on the screen, however it is wrapped."""
    await wait_for(pilot, lambda: text in " ".join(seen(pilot.app).split()))


def told(app: Any, selector: str) -> str:
    """What one widget says, however it is wrapped."""
    return " ".join(str(app.screen.query_one(selector, Static).content).split())


def seen(app: Any) -> str:
    """The screen as lines of text."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips(app.size))


async def types(pilot: Pilot[int], text: str) -> None:
    """Press the keys of a text."""
    await pilot.press(*(_KEYS.get(character, character) for character in text))


async def go_to(pilot: Pilot[int], name: str) -> Any:
    """Put the focus on the editor of an option, and return it."""
    editor = field(pilot.app, name)
    editor.focus()
    await wait_for(pilot, lambda: editor.has_focus)
    return editor


def field(app: Any, name: str) -> Any:
    """The editor of one option on the screen."""
    return app.screen.query_one(f"#{row_id(name)}").editor
