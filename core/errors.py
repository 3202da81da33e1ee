"""The one exception that carries words for people: what is wrong, in which words, and what to do."""


class SftuiError(Exception):
    """A failure that a person can act on; a defect stays an ordinary exception with its traceback."""

    title: str
    """A few words, without a full stop: "The model folder is incomplete"."""
    message: str
    """What happened, in sentences."""
    hint: str
    """What to do about it; empty when there is nothing to advise."""

    def __init__(self, title: str, message: str, hint: str = "") -> None:
        super().__init__(title, message, hint)
        self.title = title
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.title}: {self.message}"
        return f"{text} {self.hint}" if self.hint else text
