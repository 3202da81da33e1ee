"""The installed transformers' own tables, read from its source: which class loads which model type.

Importing transformers takes seconds and the tables change with every release, so its files are parsed instead.
"""

import ast
import contextlib
import functools
import importlib.util
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import python_source
from core.errors import SftuiError
from core.paths import cache_home, write_atomically

Table = dict[str, str]

TEXT_CONFIGS = ("text_config", "language_config", "llm_config")
"""Keys that hold the text part of a composite model's configuration."""
_TABLE_FILES = ("modeling_auto.py", "auto_mappings.py", "configuration_auto.py")
_TABLE_SUFFIXES = ("_MAPPING_NAMES", "_TO_MODULE_NAME")


@dataclass(frozen=True)
class ConfigDefaults:
    """What a configuration class of transformers assumes for keys that a config.json leaves out."""

    values: dict[str, Any]
    attribute_map: Table
    """Common name → the name that this model type uses: "hidden_size" → "n_embd"."""
    parts: frozenset[str] = field(default=frozenset())
    """Keys of the configurations nested in it: "text_config", "vision_config"."""
    text: "ConfigDefaults | None" = None
    """Of the text part, where the type is a composite."""
    text_is_fixed: bool = False
    """The text part is of one class, whatever model type it names."""
    tied_by_text: bool = False
    """The whole ties its embeddings when its text part says so."""


NO_DEFAULTS = ConfigDefaults({}, {})


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
    # A checksum tells edited checkouts of one version apart, and costs less than importlib.metadata. This file is
    # part of it: what it does not understand yet is not in the tables that it kept.
    kept = cache / f"auto-tables-{zlib.crc32(b''.join([*sources, Path(__file__).read_bytes()])):08x}.json"
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
    for statement in python_source.parse(source).body:
        if isinstance(statement, ast.Assign | ast.Expr) and isinstance(statement.value, ast.Call):
            name = _table_name(statement)
            if name.endswith(_TABLE_SUFFIXES):
                call = statement.value
                entries = [*call.args, *(keyword.value for keyword in call.keywords)]
                tables.setdefault(name, {}).update(pair for entry in entries for pair in _pairs(entry))
    return tables


def _table_name(statement: ast.Assign | ast.Expr) -> str:
    """Return the name of the table that is made here, or added to by its update()."""
    if isinstance(statement, ast.Assign):
        target: ast.expr | None = statement.targets[0]
    else:
        called = statement.value.func if isinstance(statement.value, ast.Call) else None
        target = called.value if isinstance(called, ast.Attribute) and called.attr == "update" else None
    return target.id if isinstance(target, ast.Name) else ""


def _pairs(entries: ast.expr) -> list[tuple[str, str]]:
    """Return the ("type", "Class") pairs of a list or a dictionary; of a tuple of classes, the first."""
    pairs: list[tuple[ast.expr | None, ast.expr]] = []
    if isinstance(entries, ast.Dict):
        pairs = list(zip(entries.keys, entries.values, strict=True))
    elif isinstance(entries, ast.List):
        couples = [entry.elts for entry in entries.elts if isinstance(entry, ast.Tuple) and len(entry.elts) == 2]
        pairs = [(key, value) for key, value in couples]
    found = []
    for key, value in pairs:
        first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
        if isinstance(key, ast.Constant) and isinstance(first, ast.Constant):
            found.append((str(key.value), str(first.value)))
    return found


def config_defaults(model_type: str) -> ConfigDefaults:
    """Return the defaults and other names of a model type's configuration class; empty when it is not found."""
    tables = auto_tables()
    classes = tables.get("CONFIG_MAPPING_NAMES", {})
    class_name = classes.get(model_type)
    if class_name is None:
        return NO_DEFAULTS
    # A type that borrows its class has no module of its own.
    for kind in (model_type, *(kind for kind, name in classes.items() if name == class_name)):
        found = _config_defaults(module_file(kind, "configuration"), class_name)
        if found is not NO_DEFAULTS:
            return found
    return NO_DEFAULTS


def module_file(model_type: str, kind: str) -> Path:
    """Return where transformers would keep a model type's "configuration" or "modeling" file; it need not exist."""
    modules = auto_tables().get("SPECIAL_MODEL_TYPE_TO_MODULE_NAME", {})
    module = modules.get(model_type, model_type.replace("-", "_"))
    return _package() / "models" / module / f"{kind}_{module}.py"


@functools.cache
def _config_defaults(path: Path, class_name: str) -> ConfigDefaults:
    if not path.is_file():
        return NO_DEFAULTS
    statements = python_source.parse(path.read_bytes()).body
    classes = {statement.name: statement for statement in statements if isinstance(statement, ast.ClassDef)}
    return _defaults(classes[class_name], classes) if class_name in classes else NO_DEFAULTS


def _defaults(definition: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> ConfigDefaults:
    values = _class_values(definition, classes)
    names = values.pop("attribute_map", {})
    parts = _nested_parts(definition, classes)
    specification = next((parts[key] for key in ("text_config", *TEXT_CONFIGS) if key in parts), None)
    text, fixed = _text_part(specification, classes) if specification is not None else (None, False)
    tied_by_text = any(
        isinstance(node, ast.If) and _mentions(node.test, "text_config") and _mentions(node.test, "tie_word_embeddings")
        for node in ast.walk(definition)
    )
    return ConfigDefaults(values, names, frozenset(parts), text, fixed, tied_by_text)


def _class_values(definition: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id in classes and base.id != definition.name:
            values |= _class_values(classes[base.id], classes)
    for name, value in _assignments(definition):
        # Defaults that are computed are not known here.
        with contextlib.suppress(ValueError, TypeError):
            values[name] = _value(value) if value else None
    return values


def _value(node: ast.expr) -> Any:
    """Return a constant, or the product that it is written as: 4096 * 32."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _value(node.left) * _value(node.right)
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)


def _assignments(definition: ast.ClassDef) -> list[tuple[str, ast.expr | None]]:
    found: list[tuple[str, ast.expr | None]] = []
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.append((statement.target.id, statement.value))
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found.append((statement.targets[0].id, statement.value))
    return found


def _nested_parts(definition: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, ast.expr]:
    """Return what a composite's class declares for each of its nested configurations."""
    parts: dict[str, ast.expr] = {}
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id in classes and base.id != definition.name:
            parts |= _nested_parts(classes[base.id], classes)
    for name, value in _assignments(definition):
        # Older releases call the table sub_configs.
        if name in ("sub_configs_defaults", "sub_configs") and isinstance(value, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in value.keys]
            parts = {key: part for key, part in zip(keys, value.values, strict=True) if isinstance(key, str)}
    return parts


def _text_part(specification: ast.expr, classes: dict[str, ast.ClassDef]) -> tuple[ConfigDefaults | None, bool]:
    """Return a nested configuration's defaults, and whether they hold for every model type that it may name."""
    arguments = {}
    if isinstance(specification, ast.Call):
        arguments = {argument.arg: argument.value for argument in specification.keywords}
        specification = specification.args[0] if specification.args else arguments.get("config_class", specification)
    if isinstance(specification, ast.Name) and specification.id != "AutoConfig":
        if specification.id in classes:
            return _defaults(classes[specification.id], classes), True
        types = auto_tables().get("CONFIG_MAPPING_NAMES", {}).items()
        return config_defaults(next((kind for kind, name in types if name == specification.id), "")), True
    try:
        own = config_defaults(str(ast.literal_eval(arguments["model_type"])))
        values = _value(arguments["init_kwargs"]) if "init_kwargs" in arguments else {}
    except (KeyError, ValueError, TypeError):
        return None, False
    return ConfigDefaults({**own.values, **values}, own.attribute_map), False


def _mentions(node: ast.AST, name: str) -> bool:
    return any(
        (isinstance(inner, ast.Attribute) and inner.attr == name)
        or (isinstance(inner, ast.Constant) and inner.value == name)
        for inner in ast.walk(node)
    )
