"""Reads config.json under transformers' common names, with the defaults for what the file leaves out."""

import re
from typing import Any

from core.models.auto_tables import NO_DEFAULTS, TEXT_CONFIGS, config_defaults

_VISUAL = re.compile(r"(^|_)(vision|visual|image|vq|vit)(_|$)")


class ConfigLookup:
    """Looks a key up where transformers would: in the text part, under the type's own name, in its defaults."""

    def __init__(self, config: dict[str, Any], model_type: str) -> None:
        nested = [config[key] for key in TEXT_CONFIGS if isinstance(config.get(key), dict)]
        self._config = config
        self._outer = config_defaults(model_type)
        self._text: dict[str, Any] = nested[0] if nested else config
        given = config_defaults(str(self._text.get("model_type", ""))) if nested else NO_DEFAULTS
        usual = self._outer.text
        if usual is not None and (self._outer.text_is_fixed or given is NO_DEFAULTS):
            given = usual
        elif not nested:
            given = self._outer
        self._defaults = given
        names = self._defaults.attribute_map
        # Without a text part of its own, a composite keeps the keys of both in one place.
        self._sources = [self._text, given.values] + ([self._outer.values] if not nested else [])
        self._names = {**self._outer.attribute_map, **names} if not nested else names

    @property
    def text_type(self) -> str | None:
        """The model type that the text part names; None when there is no such part."""
        named = self._text.get("model_type") if self._text is not self._config else None
        return named if isinstance(named, str) else None

    def value(self, key: str) -> Any:
        """Return the value of a key by its common name; None when nothing tells it."""
        return next(iter(self._values(key)), None)

    def outer(self, key: str) -> Any:
        """Return the value of a key of the whole model, not of its text part."""
        return self._config.get(key, self._outer.values.get(key))

    def number(self, *keys: str) -> int | None:
        """Return the first of these keys that is a positive integer, or a list of one such integer repeated.

        What the file says goes before the defaults, under whichever of the names.
        """
        switched_off = set()
        for values in self._sources:
            for key in keys:
                for name in (self._names.get(key, key), key):
                    found = _positive(values.get(name))
                    if found is not None and key not in switched_off:
                        return found
                    # An explicit null is an answer: it switches a sliding window off.
                    if name in values and values[name] is None:
                        switched_off.add(key)
        return None

    def length(self, *keys: str) -> int | None:
        """Return the number of entries of the first of these keys that is a list, or a string of letters."""
        found = [value for key in keys for value in self._values(key) if isinstance(value, list | str) and value]
        return len(found[0]) if found else None

    def kv_heads(self, heads: int | None) -> int | None:
        """Return the number of key and value heads; all `heads` unless the model shares them."""
        grouped = self.value("new_decoder_architecture") is True
        if self.value("multi_query") is True and not grouped:
            return 1
        nested = self.value("attn_config")
        inside = _positive(nested.get("kv_n_heads")) if isinstance(nested, dict) else None
        return inside or self.number("num_key_value_heads", "num_kv_heads", "multi_query_group_num") or heads

    def experts(self, *keys: str) -> int | None:
        """Return a number of routed experts; None for a dense model, also where it has the keys of a mixture."""
        if self.value("is_moe") is False:
            return None
        nested = self.value("ffn_config")
        inside = [_positive(nested.get(key)) for key in keys] if isinstance(nested, dict) else []
        return next((number for number in inside if number), None) or self.number(*keys)

    def inner_default(self, hidden: int | None) -> int | None:
        """Return the width of the MLP in the types that derive it from the hidden size."""
        own = {name for values in self._sources for name in values}
        return 4 * hidden if hidden and own & {"n_inner", "ffn_hidden_size"} else None

    def tied(self, *, text_only: bool) -> bool:
        """Whether the output head is the embedding table, in the whole model or in its text part loaded alone."""
        text = self.value("tie_word_embeddings")
        old_name = self._text.get("tie_embedding", self._config.get("tie_embedding"))
        if isinstance(old_name, bool):
            return old_name
        whole = self.outer("tie_word_embeddings")
        if text_only or not isinstance(whole, bool):
            return text is True
        return whole or (self._outer.tied_by_text and text is True)

    def visual(self) -> bool:
        """Whether the whole model has a part that reads images."""
        return any(_VISUAL.search(key) for key in (*self._outer.parts, *self._outer.values, *self._config))

    def _values(self, key: str) -> list[Any]:
        names = (self._names.get(key, key), key)
        return [values[name] for values in self._sources for name in names if name in values]


def _positive(value: Any) -> int | None:
    if isinstance(value, list) and value and all(type(entry) is int for entry in value) and len(set(value)) == 1:
        value = value[0]
    return value if type(value) is int and value > 0 else None
