"""The installed transformers' own tables, read from its source: which class loads which model type.

Importing transformers takes seconds and the tables change with every release, so its files are parsed instead.
"""

import ast
import contextlib
import functools
import importlib.util
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.paths import cache_home, write_atomically

Table = dict[str, str]

_TABLE_FILES = ("modeling_auto.py", "auto_mappings.py", "configuration_auto.py")
_TABLE_SUFFIXES = ("_MAPPING_NAMES", "_TO_MODULE_NAME")


@dataclass(frozen=True)
class ConfigDefaults:
    """What a configuration class of transformers assumes for keys that a config.json leaves out."""

    values: dict[str, Any]
    attribute_map: Table
    """Common name → the name that this model type uses: "hidden_size" → "n_embd"."""


def auto_tables() -> dict[str, Table]:
    """Return all tables by name, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES" → {"llama": "LlamaForCausalLM", …}.

    Parsed once for each release of transformers and kept in the cache folder. Raises SftuiError when transformers
    is not installed.
    """
    return _auto_tables(_package(), cache_home())


@functools.cache
def _auto_tables(package: Path, cache: Path) -> dict[str, Table]:
    paths = [package / "models" / "auto" / name for name in _TABLE_FILES]
    sources = [path.read_bytes() for path in paths if path.is_file()]
    # A checksum tells edited checkouts of one version apart, and costs less than importlib.metadata.
    kept = cache / f"auto-tables-{zlib.crc32(b''.join(sources)):08x}.json"
    with contextlib.suppress(OSError, ValueError):
        tables = json.loads(kept.read_text(encoding="utf-8"))
        if isinstance(tables, dict) and "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES" in tables:
            return tables
    tables = {}
    for source in sources:
        for name, table in _parse_tables(source).items():
            tables.setdefault(name, {}).update(table)
    # A cache that cannot be written costs a fraction of a second at each start, nothing else.
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(tables))
    return tables


def _package() -> Path:
    # find_spec finds a top-level package without importing it.
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise SftuiError(
            "transformers is not installed",
            "The classes that load a model are looked up in it.",
            "Install it: pip install transformers",
        )
    return Path(spec.origin).parent


def _parse_tables(source: bytes) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        name = statement.targets[0].id
        if name.endswith(_TABLE_SUFFIXES) and isinstance(statement.value, ast.Call):
            tables[name] = dict(
                pair for entries in statement.value.args for pair in _pairs(entries) if pair is not None
            )
    return tables


def _pairs(entries: ast.expr) -> list[tuple[str, str]]:
    """Return the ("type", "Class") pairs of a list; of a tuple of classes, the first."""
    found = []
    for entry in entries.elts if isinstance(entries, ast.List) else []:
        if isinstance(entry, ast.Tuple) and len(entry.elts) == 2:
            key, value = entry.elts
            if isinstance(value, ast.Tuple) and value.elts:
                value = value.elts[0]
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                found.append((str(key.value), str(value.value)))
    return found


def config_defaults(model_type: str) -> ConfigDefaults:
    """Return the defaults and other names of a model type's configuration class; empty when it is not found."""
    modules = auto_tables().get("SPECIAL_MODEL_TYPE_TO_MODULE_NAME", {})
    module = modules.get(model_type, model_type.replace("-", "_"))
    if not module.isidentifier():
        return ConfigDefaults({}, {})
    return _config_defaults(_package() / "models" / module / f"configuration_{module}.py", model_type)


@functools.cache
def _config_defaults(path: Path, model_type: str) -> ConfigDefaults:
    if not path.is_file():
        return ConfigDefaults({}, {})
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    classes = {statement.name: statement for statement in statements if isinstance(statement, ast.ClassDef)}
    for definition in classes.values():
        values = _class_values(definition, classes)
        if values.get("model_type") == model_type:
            names = values.pop("attribute_map", {})
            return ConfigDefaults(values, names)
    return ConfigDefaults({}, {})


def _class_values(definition: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id in classes and base.id != definition.name:
            values |= _class_values(classes[base.id], classes)
    for statement in definition.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(statement, ast.AnnAssign):
            target = statement.target
        if isinstance(target, ast.Name) and isinstance(statement, ast.Assign | ast.AnnAssign):
            # Defaults that are computed are not known here.
            with contextlib.suppress(ValueError, TypeError):
                values[target.id] = ast.literal_eval(statement.value) if statement.value else None
    return values
