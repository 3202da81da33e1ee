"""Reads config.json under transformers' common names, with the defaults for what the file leaves out."""

from typing import Any

from core.models.auto_tables import config_defaults

TEXT_CONFIGS = ("text_config", "language_config", "llm_config")
"""Keys that hold the text part of a composite model's configuration."""


class ConfigLookup:
    """Looks a key up where transformers would: in the text part, under the type's own name, in its defaults."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        nested = [config[key] for key in TEXT_CONFIGS if isinstance(config.get(key), dict)]
        self._text: dict[str, Any] = nested[0] if nested else config
        self._defaults = config_defaults(str(self._text.get("model_type", "")))
        self._outer_defaults = config_defaults(str(config.get("model_type", "")))

    def value(self, key: str) -> Any:
        """Return the value of a key by its common name; None when nothing tells it."""
        own = self._defaults.attribute_map.get(key, key)
        for values in (self._text, self._defaults.values):
            for name in (own, key):
                # An explicit null is an answer: it switches a sliding window off.
                if name in values:
                    return values[name]
        return None

    def number(self, *keys: str) -> int | None:
        """Return the first of these keys that is an integer."""
        for key in keys:
            value = self.value(key)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def kv_heads(self, heads: int | None) -> int | None:
        """Return the number of key and value heads; all `heads` unless the model shares them."""
        grouped = self.value("new_decoder_architecture") is True
        if self.value("multi_query") is True and not grouped:
            return 1
        return self.number("num_key_value_heads", "num_kv_heads") or heads

    def inner_default(self, hidden: int | None) -> int | None:
        """Return the width of the MLP in the types that derive it from the hidden size."""
        own = {*self._text, *self._defaults.values}
        return 4 * hidden if hidden and own & {"n_inner", "ffn_hidden_size"} else None

    def tied(self) -> bool:
        """Whether the output head is the embedding table."""
        places = (self._config, self._text, self._outer_defaults.values, self._defaults.values)
        found = [values["tie_word_embeddings"] for values in places if "tie_word_embeddings" in values]
        return bool(found and found[0])
