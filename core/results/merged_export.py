"""The whole model in 16 bits: the base's files with the result worked in, written one after the other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from core.errors import SftuiError
from core.models import loading
from core.models.architecture import detect
from core.models.checkpoint_files import read_json_object
from core.results.adapter_export import copy_generation_config, copy_tokenizer
from core.results.cards import write_card
from core.results.exporting import ExportProgress, ExportRequest
from core.results.loaded import base_request, result_tokenizer
from core.results.merging import Merge, merged_files, write_index
from core.results.result import Result, check_result
from core.spec.run_spec import RunSpec
from core.text import safe

Hear = Callable[[ExportProgress], object]
_DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Of the base, beside its weights and tokenizer: how it is built, its own code, what prepares its images.
_KEPT = ("*.py", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


class MergedExport:
    """A merge that is ready to be written."""

    def __init__(self, result: Result, spec: RunSpec) -> None:
        """Raises SftuiError for what cannot be merged rightly."""
        check_result(result, spec)
        self._result, self._spec = result, spec
        self.base = base_request(spec, "float32", "cpu")
        if (stored := self.base.architecture.stored_quantization) is not None:
            raise SftuiError(
                "There are no weights to merge into",
                f"The base model is stored in {safe(stored)}: what its weights were before is not in its files.",
                "Export the adapter itself (--adapter DIR), and use it on the unquantized model.",
            )
        adapter = result.path if result.kind == "adapter" else None
        tokenizer = result_tokenizer(result.path, spec, self.base, lambda *_: None)
        self.source = self.base.folder if adapter else result.path
        request = self.base
        if adapter is None:
            architecture = detect(result.path, spec.sftui.preference)
            request = loading.LoadRequest(result.path, architecture, "float32", None, "cpu")
        self._merge = Merge(request, adapter, tokenizer)
        halves = {tensor.dtype for tensor in self._merge.stored.values()} & {"F16", "BF16"}
        self.dtype = torch.float16 if halves == {"F16"} else torch.bfloat16
        self._files = list(merged_files(self._merge, self.source, self.dtype))
        self.size_bytes = sum(size for _, size, _ in self._files)

    def fingerprint(self) -> list[list[object]]:
        """What the files were made from: an attempt that was cut off is gone on with only where it is the same."""
        files = sorted({*self.source.glob("*.safetensors"), *self._result.path.glob("*.safetensors")})
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    def write(self, target: Path, request: ExportRequest, hear: Hear) -> None:
        """Write weights, configuration and tokenizer. Files that are there whole from before are left as they are."""
        done = 0
        for number, (name, size, write) in enumerate(self._files, 1):
            file, half = target / name, target / f"{name}.half"
            what = f"merging file {number} of {len(self._files)}" if len(self._files) > 1 else "merging"
            hear(ExportProgress(what, done, self.size_bytes))
            if not file.is_file():
                write(
                    half,
                    lambda bytes_, what=what, before=done: hear(  # type: ignore[misc]
                        ExportProgress(what, before + bytes_, self.size_bytes)
                    ),
                )
                half.rename(file)
            done += size
        hear(ExportProgress("merging", done, self.size_bytes))
        write_index(self._merge, self.source, target, self.size_bytes)
        self._write_config(target)
        copy_tokenizer(self._result.path, target)
        copy_generation_config(self._result.path, self.base.folder, target)
        for file in {file for pattern in _KEPT for file in self.base.folder.glob(pattern)}:
            shutil.copyfile(file, target / file.name)

    def write_card(self, target: Path, request: ExportRequest, facts: tuple[tuple[str, str], ...]) -> None:
        """Write README.md."""
        write_card(target, self._result, self._spec, "merged", self.base.folder, request.base_id, facts)

    def _write_config(self, target: Path) -> None:
        config = read_json_object(self.source / "config.json", "The model's configuration cannot be read")
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part.pop("_name_or_path", None)
            for key in ("dtype", "torch_dtype"):
                if key in part:
                    part[key] = _DTYPES[self.dtype]
        config.setdefault("dtype", _DTYPES[self.dtype])
        if self._merge.vocabulary is not None:
            text = config.get("text_config")
            (text if isinstance(text, dict) and "vocab_size" in text else config)["vocab_size"] = self._merge.vocabulary
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (target / "config.json").write_text(text + "\n", encoding="utf-8")
