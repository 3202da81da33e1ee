"""YAML of plain data only, where each key stands once and 1e-8 is a number."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from core.text import safe

# YAML 1.1 reads 1e-8 as text, which pydantic would mend and the arguments that are passed on to TRL would not.
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


class Loader(yaml.SafeLoader):
    """Builds plain data. Tags of Python are refused, and so is a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A dict of the node."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    words = f"{key.value} is given a second time"
                    raise yaml.constructor.ConstructorError(None, None, words, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Writes what Loader reads back."""


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    # Unicode has more line breaks than \n; unless they are escaped, a reader folds them into spaces.
    style = '"' if any(character in text for character in "\n\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)

for _class in (Loader, Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def load(text: str) -> Any:
    """The data in a text. Raises yaml.YAMLError, or RecursionError where it is nested too deeply."""
    return yaml.load(text, Loader)


def dump(value: Any) -> str:
    """A value as YAML, without the newline at its end."""
    text = _dump(value, readable=True)
    # What would reorder or hide words is escaped, and all else in the entry with it.
    return text if safe(text, keep_newlines=True) == text else _dump(value, readable=False)


def _dump(value: Any, *, readable: bool) -> str:
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=readable, width=1_000_000)
    return text.rstrip("\n")
