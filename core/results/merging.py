"""A result's weights worked into the base's files, one tensor at a time.

The base is read tensor by tensor, as its files have it, and never whole: memory holds one tensor and what an adapter
adds to it. What is added is known by the names that weights have in the model; transformers tells what they are called
in the files, and cuts fused experts apart as it does when it saves.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from safetensors import safe_open
from torch import nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from core.errors import SftuiError
from core.models import loading
from core.models.checkpoint_files import TensorInfo, read_tensors
from core.models.token_rows import fit_to_tokenizer
from core.results.safetensors_writer import write_safetensors
from core.text import safe

_ADAPTER = "default"
_REMEMBERED = 4
Compute = Callable[[torch.Tensor | None], torch.Tensor]
"""From the base's tensor to what takes its place; additions take none."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of one weight, under its name in the model."""

    name: str
    adds: bool
    """Whether `compute` gives what is added, whatever the weight is: that can be cut into pieces as files have it."""
    compute: Compute


class Merge:
    """What an adapter does to the tensors of a base model's files."""

    def __init__(self, request: loading.LoadRequest, adapter: Path | None, tokenizer: Any) -> None:
        """`adapter` None leaves the weights as they are. Raises SftuiError for what cannot be merged rightly."""
        self.stored = {tensor.name: tensor for tensor in read_tensors(request.folder)}
        self.vocabulary: int | None = None
        """Rows of the embedding where there are more than in the base's files."""
        self.left_out: frozenset[str] = frozenset()
        """Tensors that only repeat one that is changed."""
        self._changes: dict[str, _Change] = {}
        self._pieces: dict[str, dict[str, torch.Tensor]] = {}
        self._model: Any = None
        if adapter is None:
            return
        with torch.no_grad():
            self._model = _empty_model(request)
            rows = self._model.get_input_embeddings().weight.shape[0]
            trusted = loading.trusts_own_code(request)
            fit_to_tokenizer(self._model, tokenizer, request.folder, lambda _: None, trusted=trusted)
            now = self._model.get_input_embeddings().weight.shape[0]
            self.vocabulary = now if now != rows else None
            # Afterwards modules are wrapped, and called otherwise.
            self._shapes = {
                name: tuple(weight.shape) for name, weight in self._model.named_parameters(remove_duplicate=False)
            }
            self._embedding, self._head, self._tied = _ends(self._model)
            for change in _changes(_adapted(self._model, adapter)):
                self._place(change)
        self._keep_tied()

    @property
    def changed(self) -> int:
        """How many tensors of the files are changed."""
        return len(self._changes)

    def tensor(self, name: str, base: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What takes the place of a tensor of the base's files, in this type if it is a float weight.

        It is summed in float32 and rounded once.
        """
        change = self._changes.get(name)
        if change is None:
            return base.to(dtype) if base.is_floating_point() else base
        with torch.no_grad():
            if change.adds:
                return (base.float() + self._added(change, name)).to(dtype)
            return change.compute(base).to(dtype)

    def shape(self, tensor: TensorInfo) -> tuple[int, ...]:
        """The shape of what takes its place."""
        change = self._changes.get(tensor.name)
        if change is not None and self.vocabulary is not None and change.name in (self._embedding, self._head):
            return (self.vocabulary, *tensor.shape[1:])
        return tensor.shape

    def _added(self, change: _Change, stored: str) -> torch.Tensor:
        """The part of an addition that belongs to one tensor of the files."""
        if change.name not in self._pieces:
            while len(self._pieces) >= _REMEMBERED:
                self._pieces.pop(next(iter(self._pieces)))
            self._pieces[change.name] = self._as_stored(change.name, change.compute(None).float())
        return self._pieces[change.name][stored]

    def _as_stored(self, name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        pieces: dict[str, torch.Tensor] = revert_weight_conversion(self._model, {name: weight})
        return pieces

    def _place(self, change: _Change) -> None:
        """Find the tensors of the files that a change is about."""
        shape = self._shapes[change.name]
        stored = self._as_stored(change.name, torch.empty(shape, device="meta"))
        if len(stored) > 1 and not change.adds:
            raise _refuse(f"{change.name} is stored in {len(stored)} parts, and is not only added to.")
        for name, piece in stored.items():
            there = self.stored.get(name)
            if there is None and self._tied and change.name == self._head:
                # The files have it once, under the embedding's name.
                continue
            grown = self.vocabulary is not None and change.name in (self._embedding, self._head)
            if there is None or (there.shape != tuple(piece.shape) and not grown):
                raise _refuse(f"{change.name} is stored in another form than transformers has it in.")
            self._changes[name] = change

    def _keep_tied(self) -> None:
        """Let an embedding and a head that share a weight go on sharing it."""
        if not self._tied:
            return
        changed = {change.name for change in self._changes.values()}
        if self._head in changed and self._embedding not in changed:
            raise _refuse("The head was trained apart from the embedding whose weight it shares.")
        if self._embedding in changed:
            copies = self._as_stored(self._head, torch.empty(0, device="meta"))
            self.left_out = frozenset(name for name in copies if name in self.stored)


def _empty_model(request: loading.LoadRequest) -> Any:
    """The base model without weights, that knows what its weights are called in the files."""
    auto_class = getattr(transformers, request.architecture.auto_class)
    return auto_class.from_pretrained(
        str(request.folder),
        dtype=torch.float32,
        device_map={"": "meta"},
        trust_remote_code=loading.trusts_own_code(request),
        use_safetensors=True,
        local_files_only=True,
    )


def _adapted(model: Any, adapter: Path) -> Any:
    """The model with the adapter's weights on it, while its own are nowhere."""
    config = LoraConfig.from_pretrained(str(adapter))
    adapted = PeftModel(model, config, adapter_name=_ADAPTER, low_cpu_mem_usage=True)
    for module in adapted.modules():
        if isinstance(module, BaseTunerLayer):
            # PEFT would move them to where the base's weights are.
            module._move_adapter_to_device_of_base_layer = lambda *_, **__: None
    weights = {name: weight.float() for name, weight in load_peft_weights(str(adapter), device="cpu").items()}
    set_peft_model_state_dict(adapted, weights, low_cpu_mem_usage=True)
    unread = sorted(name for name, weight in get_peft_model_state_dict(adapted).items() if weight.is_meta)
    if unread:
        raise _refuse(f"{len(unread)} of its weights are not in its file ({unread[0]}, …).")
    return adapted


def _changes(adapted: Any) -> Iterator[_Change]:
    for name, module in adapted.base_model.model.named_modules():
        plain = _plain(name)
        if isinstance(module, TrainableTokensWrapper):
            yield _rows(plain, module)
        elif isinstance(module, ModulesToSaveWrapper):
            for inner, weight in module.modules_to_save[_ADAPTER].named_parameters():
                yield _replaced(f"{plain}.{inner}", weight)
        elif isinstance(module, ParamWrapper):
            yield _Change(f"{plain}.{module.parameter_name}", True, _experts_delta(module))
        elif isinstance(module, LoraLayer):
            yield _lora(plain, module)


def _lora(name: str, module: Any) -> _Change:
    # Not that others could not be merged: nothing here shows that it is done rightly.
    known = isinstance(module.get_base_layer(), nn.Linear | nn.Embedding | Conv1D)
    if not known or module.lora_bias.get(_ADAPTER):
        raise _refuse(f"{name} is adapted in a way that is not known here.")
    if module.use_dora.get(_ADAPTER):
        return _Change(f"{name}.weight", False, _dora(module))
    return _Change(f"{name}.weight", True, _delta(module))


def _delta(module: Any) -> Compute:
    return lambda _: module.get_delta_weight(_ADAPTER)


def _experts_delta(module: Any) -> Compute:
    """PEFT's own moves what it computed to where the base's weight is: nowhere. Experts are the first dimension."""
    a, b = (layer[_ADAPTER].weight.detach() for layer in (module.lora_A, module.lora_B))
    form = "o r e, e r i -> e o i" if module._did_swap_in_out_features else "o r e, e r i -> e i o"

    def compute(_: torch.Tensor | None) -> torch.Tensor:
        if module.num_experts == 1:
            return b @ a * module.scaling[_ADAPTER]
        inner = a.reshape(module.num_experts, -1, a.shape[-1])
        outer = b.reshape(b.shape[0], -1, module.num_experts)
        return torch.einsum(form, outer, inner) * module.scaling[_ADAPTER]

    return compute


def _dora(module: Any) -> Compute:
    """arXiv 2402.09353: magnitude · (W + scale·B·A) / |W + scale·B·A|, by rows of what goes out."""

    def compute(base: torch.Tensor | None) -> torch.Tensor:
        assert base is not None
        whole = base.float() + module.get_delta_weight(_ADAPTER).float()
        out = whole.T if module.fan_in_fan_out else whole
        magnitude = module.lora_magnitude_vector[_ADAPTER].weight.float()
        scaled = out * (magnitude / torch.linalg.norm(out, dim=1))[:, None]
        return scaled.T if module.fan_in_fan_out else scaled

    return compute


def _replaced(name: str, weight: torch.Tensor) -> _Change:
    return _Change(name, False, lambda _: weight.detach())


def _rows(name: str, module: Any) -> _Change:
    adapter = module.token_adapter

    def compute(base: torch.Tensor | None) -> torch.Tensor:
        assert base is not None
        places = torch.as_tensor(adapter.token_indices[_ADAPTER])
        rows = max(adapter.base_layer.weight.shape[0], base.shape[0])
        whole = torch.zeros(rows, *base.shape[1:])
        whole[: base.shape[0]] = base.float()
        whole[places] = adapter.trainable_tokens_delta[_ADAPTER].detach().float()
        return whole

    return _Change(f"{name}.weight", False, compute)


def _plain(name: str) -> str:
    """A module's name as it is without adapters."""
    return name.replace(".base_layer", "").replace(".token_adapter", "")


def _ends(model: Any) -> tuple[str, str, bool]:
    """The names of the embedding's weight and of the head's, and whether they are one."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    return names[id(embedding)], names.get(id(head), ""), head is not None and head.weight is embedding.weight


def _refuse(why: str) -> SftuiError:
    return SftuiError(
        "This adapter cannot be merged", safe(why), "Export the adapter itself (--adapter DIR); PEFT loads it."
    )


def merged_files(
    merge: Merge, folder: Path, dtype: torch.dtype
) -> Iterator[tuple[str, int, Callable[[Path, Callable[[int], object]], None]]]:
    """Each file of weights to be written: its name, its bytes, and what writes it, telling the bytes that are done."""
    for name, tensors in _by_file(folder, merge.stored).items():
        kept = [tensor for tensor in tensors if tensor.name not in merge.left_out]
        entries = [(one.name, dtype if one.dtype[0] in "FB" and one.dtype != "BOOL" else None, one) for one in kept]
        size = sum(_bytes(merge.shape(one), kind, one) for _, kind, one in entries)

        def write(
            target: Path,
            tell: Callable[[int], object],
            name: str = name,
            entries: list[tuple[str, torch.dtype | None, TensorInfo]] = entries,
        ) -> None:
            with ExitStack() as opened:
                source = opened.enter_context(safe_open(folder / name, framework="pt"))
                shapes = [(key, kind, one.dtype, merge.shape(one)) for key, kind, one in entries]
                write_safetensors(target, shapes, lambda key: merge.tensor(key, source.get_tensor(key), dtype), tell)

        yield name, size, write


def write_index(merge: Merge, folder: Path, target: Path, total: int) -> None:
    """Say in which file each tensor is; nothing where there is one file."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    files = _by_file(folder, merge.stored)
    places = {
        tensor.name: name for name, tensors in files.items() for tensor in tensors if tensor.name not in merge.left_out
    }
    told = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (target / index.name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _by_file(folder: Path, stored: Mapping[str, TensorInfo]) -> dict[str, list[TensorInfo]]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file() or not index.is_file():
        return {single.name: list(stored.values())}
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    files: dict[str, list[TensorInfo]] = {}
    for name, tensor in stored.items():
        files.setdefault(Path(places[name]).name, []).append(tensor)
    return files


def _bytes(shape: tuple[int, ...], dtype: torch.dtype | None, tensor: TensorInfo) -> int:
    if dtype is None:
        return tensor.byte_count
    return math.prod(shape) * int(dtype.itemsize)
