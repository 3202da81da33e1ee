"""What of a row the model learns from."""

from typing import Literal, Protocol

from core.data.formats import Form

LearnFrom = Literal["all", "completion", "assistant"]


class LossOptions(Protocol):
    """The two options that say it, under TRL's names."""

    @property
    def assistant_only_loss(self) -> bool:
        """Only the turns of the assistant count."""

    @property
    def completion_only_loss(self) -> bool | None:
        """Only the completion counts; None leaves it to the form."""


def learn_from(options: LossOptions, form: Form) -> LearnFrom:
    """What the options ask for with rows in this form; left to itself, a prompt is not learned."""
    if options.assistant_only_loss:
        return "assistant"
    completion = options.completion_only_loss
    if completion is None:
        completion = form == "prompt-completion"
    return "completion" if completion else "all"
