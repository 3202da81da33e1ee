"""The chat template and the ends of answers of an exported model, read from its own files."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from core.models.checkpoint_files import read_json_object


class TrainedTemplate:
    """What answers are asked and ended with."""

    text: str | None
    """Jinja; None where there is none, or one for each purpose."""
    end_id: int | None
    stops: tuple[str, ...]
    """The tokens that answers end with, as text."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        template = self._tokenizer.chat_template
        self.text = template if isinstance(template, str) else None
        self.end_id = self._tokenizer.eos_token_id
        path = folder / "generation_config.json"
        known = read_json_object(path, "It cannot be read").get("eos_token_id") if path.is_file() else None
        ids = [*(known if isinstance(known, list) else [known]), self.end_id]
        tokens = (self._tokenizer.convert_ids_to_tokens(number) for number in ids if type(number) is int)
        self.stops = tuple(dict.fromkeys(token for token in tokens if token))

    def render(self, messages: Sequence[dict[str, str]], answer: bool) -> str:
        """A conversation as text, ending where an answer begins if so wished."""
        text: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer)
        return text
