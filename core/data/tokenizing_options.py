"""What decides, beside the rows and the model's folder, which tokens rows become."""

from dataclasses import asdict, dataclass
from typing import Any

from core.data.learn_from import LearnFrom, learn_from
from core.data.rows import Form
from core.spec.run_spec import RunSpec


@dataclass(frozen=True, slots=True)
class TokenizingOptions:
    """Hashable, so that what was made with it can be told apart."""

    learn_from: LearnFrom
    chat_template_path: str | None = None
    load_as: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """The "options" of a question to the warm runner."""
        return asdict(self)


def tokenizing_options(spec: RunSpec, form: Form) -> TokenizingOptions:
    """What the spec says, for rows in this form."""
    return TokenizingOptions(learn_from(spec, form), spec.chat_template_path, spec.sftui.load_as)
