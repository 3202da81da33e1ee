"""Which chat templates a base model is offered; reads its vocabulary, so for a background thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.data.chat_templates import TemplateOffer
    from core.memory.plan import ModelFacts


def offers_for(model: ModelFacts) -> tuple[TemplateOffer, ...]:
    """Templates, the best first; none for a model that has one, or whose vocabulary cannot be read."""
    from core.data.chat_templates import Embedding, template_offers
    from core.models.tokenizer_files import token_names

    it = model.architecture
    known = None if it.chat_template else token_names(model.folder)
    if known is None or it.hidden_size is None or it.vocab_size is None:
        return ()
    width = 4 if it.stored_dtype == "float32" else 2
    embedding = Embedding(it.vocab_size, it.hidden_size, it.tied_embeddings, width)
    return template_offers(it.model_type, known.names, known.count, embedding)
