"""Chat templates for models without one: ChatML, those of some families, and what taking one changes."""

from collections.abc import Collection
from dataclasses import dataclass

_SYSTEM_FIRST = "{% set system = messages[0]['content'] | trim if messages[0]['role'] == 'system' else '' %}"
_ALTERNATE = (
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('After an optional system message, user and assistant must take turns.') }}{% endif %}"
)
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}"
    + _SYSTEM_FIRST
    + _ALTERNATE
    + "{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\\n' }}"
    "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '<start_of_turn>user\\n' + (system + '\\n\\n' if system and loop.first else '')"
    " + message['content'] | trim + '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}" + _SYSTEM_FIRST + _ALTERNATE + "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] | trim + eos_token }}{% endgeneration %}"
    "{% else %}{{ '[INST] ' + (system + '\\n\\n' if system and loop.first else '')"
    " + message['content'] | trim + ' [/INST]' }}{% endif %}{% endfor %}"
)
_ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class BuiltInTemplate:
    """A template that `chat_template_path` can name."""

    name: str
    title: str
    jinja: str
    tokens: tuple[str, ...]
    """What it writes as one token each; the tokenizer must have them or get them."""
    end: str | None
    """The one of them that ends an answer; None where the tokenizer's own end token does."""
    families: tuple[str, ...] = ()
    """Model types that use it."""


_ALL = (
    BuiltInTemplate(
        "chatml", "ChatML", _CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", ("qwen", "smollm", "yi")
    ),
    BuiltInTemplate(
        "llama3",
        "Llama 3",
        _LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        ("llama", "mllama"),
    ),
    BuiltInTemplate("gemma", "Gemma", _GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", ("gemma",)),
    BuiltInTemplate(
        "phi3", "Phi-3", _PHI3, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "<|end|>", ("phi3", "phimoe")
    ),
    BuiltInTemplate("mistral", "Mistral", _MISTRAL, (), None, ("mistral", "mixtral")),
    BuiltInTemplate("zephyr", "Zephyr", _ZEPHYR, (), None),
)
BUILT_IN = {template.name: template for template in _ALL}


@dataclass(frozen=True, slots=True)
class TemplateOffer:
    """A built-in template for one model, and what taking it changes."""

    template: BuiltInTemplate
    reason: str
    new_tokens: tuple[str, ...]
    """Those that the tokenizer lacks and gets."""
    spare_rows: int
    """Rows of the embedding that belong to no token yet and are taken for them."""
    added_rows: int
    """Rows by which the embedding (and the head, where it is one of its own) grows."""
    weight_bytes: int
    """What the added rows take in memory. The result then holds the whole embedding, not only its adapter."""
    trained_parameters: int
    """Weights of the new tokens, which are trained beside the adapters."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """The sizes of a model's embedding."""

    rows: int
    hidden: int
    tied: bool
    """Whether the head shares its weight."""
    bytes_per_weight: int


def template_offers(
    model_type: str, tokens: Collection[str], token_count: int, embedding: Embedding
) -> tuple[TemplateOffer, ...]:
    """Templates for a model whose tokenizer has none, the best first.

    `tokens` are the names in its vocabulary, `token_count` is one more than the highest number of a token.
    """
    spare = max(0, embedding.rows - token_count)
    offers = []
    for template in _ALL:
        missing = tuple(token for token in template.tokens if token not in tokens)
        of_family = model_type.startswith(template.families) if template.families else False
        if template.name not in ("chatml", "zephyr") and (missing or not of_family):
            continue
        offers.append(_offer(template, missing, of_family, spare, embedding))
    return tuple(sorted(offers, key=_rank))


def _offer(
    template: BuiltInTemplate, missing: tuple[str, ...], of_family: bool, spare: int, embedding: Embedding
) -> TemplateOffer:
    taken = min(spare, len(missing))
    added = len(missing) - taken
    width = embedding.hidden * (1 if embedding.tied else 2)
    if missing:
        reason = f"needs {len(missing)} new tokens, which start without any meaning"
    elif not template.tokens:
        reason = "needs no token of its own: the end token ends each turn"
    else:
        reason = "its tokens are in the vocabulary"
    if of_family:
        reason = f"the family's own; {reason}"
    return TemplateOffer(
        template, reason, missing, taken, added, added * width * embedding.bytes_per_weight, len(missing) * width
    )


def _rank(offer: TemplateOffer) -> tuple[bool, bool, bool]:
    return bool(offer.new_tokens), "family" not in offer.reason, offer.template.name != "chatml"
