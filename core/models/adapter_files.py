"""An adapter's files, read without torch: what it says of itself, and the names and shapes of its weights."""

import functools
from dataclasses import dataclass
from pathlib import Path

from core.errors import SftuiError
from core.models.checkpoint_files import read_header, read_json_object
from core.paths import expand
from core.text import safe

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
# What these start from is a base with other weights than the one in the model's files.
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga")


@dataclass(frozen=True, slots=True)
class StartAdapter:
    """An adapter's folder, and what it says of itself."""

    folder: Path
    base: str
    """The model that it was made for, as text to be shown."""
    rank: int | None
    """None where it does not say."""
    dropout: float
    modules_to_save: tuple[str, ...]
    """Modules that it holds whole."""
    keeps_tied: bool
    """Whether an embedding that it holds whole goes on sharing its weight with the output head."""
    shapes: dict[str, tuple[int, ...]]
    """By the names in its file."""

    @property
    def uses_dora(self) -> bool:
        """Whether it has magnitudes."""
        return any("lora_magnitude_vector" in name for name in self.shapes)


def find_start(named: str) -> StartAdapter:
    """Read the adapter in a folder, or in that of a run. Raises SftuiError for what is missing, pickled or no LoRA."""
    folder = expand(named)
    if not (folder / _CONFIG).is_file() and (folder / "adapter" / _CONFIG).is_file():
        folder = folder / "adapter"
    where = safe(str(folder))
    if not (folder / _CONFIG).is_file():
        raise unfit(f"{where} has no {_CONFIG}.", "Name the folder of an adapter, or of a run that left one.")
    if not (folder / _WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            hint = "Load it with PEFT where you trust it, and save it again: save_pretrained writes safetensors."
            raise unfit(f"{where} holds adapter_model.bin, a pickle, which can run code; it is never loaded.", hint)
        raise unfit(f"{where} has no {_WEIGHTS}.", "Copy the whole folder again.")
    try:
        config = read_json_object(folder / _CONFIG, "The adapter's configuration cannot be read")
        shapes = {tensor.name: tensor.shape for tensor in read_header(folder / _WEIGHTS)}
    except (SftuiError, OSError) as error:
        words = error.message if isinstance(error, SftuiError) else safe(str(error))
        raise unfit(f"{where} cannot be read: {words}", "Copy the whole folder again.") from error
    if config.get("peft_type") != "LORA":
        kind = safe(str(config.get("peft_type")))
        raise unfit(f"{where} is no LoRA adapter, but {kind}.", "Choose a LoRA adapter.")
    first = str(config.get("init_lora_weights")).lower()
    if first.startswith(_CHANGED_BASE):
        raise unfit(
            f"{where} was started with {safe(first)}, so that it fits only a changed base model.",
            "Convert it to plain LoRA with PEFT (path_initial_model_for_weight_conversion).",
        )
    rank, dropout, whole = config.get("r"), config.get("lora_dropout"), config.get("modules_to_save")
    return StartAdapter(
        folder=folder,
        base=safe(str(config.get("base_model_name_or_path") or "an unnamed model")),
        rank=rank if type(rank) is int and not config.get("rank_pattern") else None,
        dropout=float(dropout) if isinstance(dropout, int | float) else 0.0,
        modules_to_save=tuple(name for name in whole if isinstance(name, str)) if isinstance(whole, list) else (),
        keeps_tied=config.get("ensure_weight_tying") is True,
        shapes=shapes,
    )


def start_of(named: str) -> StartAdapter:
    """The same, read anew only when the files have changed: fast enough for every key. Raises SftuiError."""
    folder = expand(named)
    files = (place / name for place in (folder, folder / "adapter") for name in (_CONFIG, _WEIGHTS))
    return _read_once(named, tuple(_time_of(file) for file in files))


@functools.lru_cache(maxsize=8)
def _read_once(named: str, _changed_at: tuple[int | None, ...]) -> StartAdapter:
    return find_start(named)


def _time_of(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def layer_of(key: str) -> str:
    """The module that a matrix in an adapter's file belongs to, as the base model calls it."""
    return key.removeprefix("base_model.model.").partition(".lora_")[0].replace(".base_layer", "")


def other_base(start: StartAdapter, words: str) -> SftuiError:
    """The refusal of a base model that the adapter was not made for; `words` say how it shows."""
    return unfit(f"The adapter was made for {start.base}: {words}.", "Choose the base it was made for.")


def unfit(message: str, hint: str) -> SftuiError:
    """The refusal of an adapter."""
    return SftuiError("Training cannot start from this adapter", message, hint)
