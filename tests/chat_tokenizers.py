"""Small byte-level tokenizers with the special tokens of real families, and TRL's own preparation of rows."""

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What templates write as one token: <|im_start|>, <｜User｜>, <end_of_turn>, [INST], <turn|>, <s> …
_TOKENS = re.compile(
    r"<\|[A-Za-z0-9_▁]+\|>|<｜[^｜\s]+｜>|<(?:start|end)_of_(?:turn|utterance|image)>|</?s>|\[/?INST\]|<\|(?:turn|tool\w*)>|<(?:turn|tool\w*)\|>"
)
TRL_TEMPLATES = "chat_templates"


@cache
def _bpe() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    words = Path(__file__).read_text(encoding="utf-8")
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator([words], trainer)
    return str(raw.to_str())


def chat_tokenizer(
    template: str | None,
    *,
    bos: str | None = "<bos>",
    eos: str = "<eos>",
    tokens: tuple[str, ...] = (),
    adds_bos: bool = False,
) -> Any:
    """A fast tokenizer that knows the special tokens which the template writes, and these."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer.from_str(_bpe())
    names = dict.fromkeys([*([bos] if bos else []), eos, "<pad>", *tokens, *_TOKENS.findall(template or "")])
    raw.add_special_tokens(list(names))
    if adds_bos and bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token="<pad>", chat_template=template
    )


def trl_templates() -> Path:
    """The folder of the templates that TRL knows."""
    import trl

    return Path(trl.__file__).parent / TRL_TEMPLATES


def prepared_by_trl(
    tokenizer: Any,
    row: dict[str, Any],
    *,
    assistant: bool = False,
    completion: bool | None = None,
    template: str | None = None,
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) that SFTTrainer itself would train on, uncut."""
    from datasets import Dataset
    from trl import SFTTrainer

    trainer = SimpleNamespace(
        _tokenizer=tokenizer,
        chat_template=template,
        completion_only_loss="prompt" in row if completion is None else completion,
    )
    arguments = SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=assistant,
        max_length=None,
        shuffle_dataset=False,
    )
    rows = Dataset.from_list([row])
    (prepared,) = SFTTrainer._prepare_dataset(trainer, rows, tokenizer, arguments, False, None, "train")
    return prepared["input_ids"], prepared["labels"]


def shown(tokenizer: Any, ids: list[int], trained: list[bool]) -> str:
    """The text with what is trained in ⟦ ⟧."""
    text, within = "", False
    for token, one in zip(ids, trained, strict=True):
        if one != within:
            text += "⟦" if one else "⟧"
            within = one
        text += tokenizer.decode([token])
    return text + ("⟧" if within else "")
