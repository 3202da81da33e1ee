"""Rows into the tokens that are trained on: the very same for the inspector, the statistics and the run."""

import copy
import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

from jinja2 import TemplateError
from trl.chat_template_utils import get_training_chat_template
from trl.data_utils import common_prefix_length

from core.choice import Choice
from core.data.learn_from import LearnFrom
from core.data.masks import Messages, SpanChecker, TurnFinder, check_answers, check_prompt
from core.data.rendered_chat import ERRORS, PROBE, ChatTemplate, marks_answers
from core.data.template_facts import TemplateFacts, template_facts, unusable
from core.data.token_spans import Asked, Encoded, trained_tokens, trained_without_offsets
from core.data.tokenized_row import RowError, TokenizedRow
from core.spec.problems import Problem

__all__ = ["MaskWay", "RowError", "RowTokenizer", "TokenizedRow"]

MaskWay = Literal["markers", "training-template", "computed", "completion", "all"]

Tokens = Generator[Asked, Any, tuple[list[int], list[bool]]]
"""Steps that end in the tokens and in which of them are trained."""

_WAYS: Mapping[MaskWay, str] = {
    "markers": "the chat template itself marks what the assistant says",
    "training-template": "TRL has a variant of this chat template that marks what the assistant says",
    "computed": "the assistant's turns are found in the rendered text, and proven for each row",
    "completion": "the loss counts what follows the prompt",
    "all": "the loss counts every token",
}


class RowTokenizer:
    """Makes tokens of canonical rows, one at a time, as TRL would; what TRL cannot mask is computed and proven."""

    way: MaskWay
    """How it is known what to train on."""
    choices: tuple[Choice, ...]
    """What was decided about template and tokenizer."""
    problems: tuple[Problem, ...]
    """What a person should know about template and tokenizer before the start."""
    end_ids: frozenset[int]
    """Tokens that end a turn or a text."""
    facts: TemplateFacts | None
    """What the chat template writes; None without one."""

    def __init__(
        self, tokenizer: Any, learn_from: LearnFrom, chat_template: str | None = None, *, turns: bool = True
    ) -> None:
        """`chat_template` is Jinja, and takes the place of the tokenizer's own.

        Without `turns` in the rows nothing is said of the template, which they do not need.
        """
        if chat_template is not None:
            tokenizer = copy.copy(tokenizer)
            tokenizer.chat_template = chat_template
        self._tokenizer = tokenizer
        self._learn_from = learn_from
        self._templates: dict[bool, ChatTemplate] = {}
        self._finders: dict[str, TurnFinder] = {}
        self._checker = SpanChecker()
        self._patched = self._training_template() if learn_from == "assistant" else None
        self.way = "computed" if learn_from == "assistant" else learn_from
        self.facts = None
        if self._tokenizer.chat_template and turns:
            template = self._template(None)
            if learn_from == "assistant" and template.marks_answers:
                self.way = "training-template" if self._patched else "markers"
            self.facts = self._look_at(template)
        eos_id = tokenizer.eos_token_id
        self.end_ids = frozenset({eos_id} - {None}) | (self.facts.end_ids if self.facts else frozenset())
        self.choices = (Choice("loss", self.way, _WAYS[self.way]), *(self.facts.choices if self.facts else ()))
        self.problems = self.facts.problems if self.facts else ()

    def tokenize(self, row: Mapping[str, Any]) -> TokenizedRow:
        """The row's tokens, uncut. Raises RowError when the template refuses it or its mask cannot be proven."""
        (made,) = self.tokenize_many([row])
        if isinstance(made, RowError):
            raise made
        return made

    def tokenize_many(self, rows: Sequence[Mapping[str, Any]]) -> list[TokenizedRow | RowError]:
        """The same of many rows, whose texts are encoded together: on all cores, where tokenizers may take them."""
        made: list[TokenizedRow | RowError | None] = [None] * len(rows)
        steps = [self._steps(row) for row in rows]
        answers: dict[int, Encoded | None] = dict.fromkeys(range(len(rows)))
        while answers:
            asked: dict[int, Asked] = {}
            for index, answer in answers.items():
                try:
                    asked[index] = steps[index].send(answer)
                except StopIteration as done:
                    made[index] = done.value
                except RowError as error:
                    made[index] = error
            answers = dict(zip(asked, self._encode(list(asked.values())), strict=True))
        return [one for one in made if one is not None]

    def _steps(self, row: Mapping[str, Any]) -> Generator[Asked, Any, TokenizedRow]:
        """The way of one row; asks for each text to be encoded, and is sent what became of it."""
        if row.get("images"):
            raise RowError("images", "The row has images, which are not text.", "Remove them to train on the text.")
        tools = _tools_of(row)
        if "text" in row:
            ids, trained = yield from self._text(row["text"])
        elif "messages" in row:
            ids, trained = yield from self._messages(row["messages"], tools)
        elif isinstance(row["prompt"], str):
            ids, trained = yield from self._completed_text(row["prompt"], row["completion"])
        else:
            ids, trained = yield from self._completed(row["prompt"], row["completion"], tools)
        if not any(trained):
            raise RowError(
                "nothing_trained", "There is nothing in the row to learn from.", "Give it an answer, or remove it."
            )
        ends = self.end_ids
        return TokenizedRow(ids, trained, tuple([place for place, token in enumerate(ids) if token in ends]))

    def _text(self, text: str) -> Tokens:
        if self._learn_from != "all":
            raise _wrong_form("a plain text")
        ids = yield from self._plain(self._ended(text))
        return ids, [True] * len(ids)

    def _messages(self, messages: Messages, tools: Any) -> Tokens:
        if self._learn_from == "completion":
            raise _wrong_form("a conversation without a prompt of its own")
        if self._learn_from == "assistant":
            return (yield from self._assistant(messages, tools))
        encoded = yield self._rendered(messages, tools), False
        return encoded.ids, [True] * len(encoded.ids)

    def _completed_text(self, prompt: str, completion: str) -> Tokens:
        if self._learn_from == "assistant":
            raise _wrong_form("a prompt and a completion without roles")
        prompt_ids = yield from self._plain(prompt)
        ids = yield from self._plain(prompt + self._ended(completion))
        return ids, self._after(prompt_ids, ids)

    def _completed(self, prompt: Messages, completion: Messages, tools: Any) -> Tokens:
        messages = [*prompt, *completion]
        asked = self._template(tools).render(prompt, tools, answer=True)
        prompt_ids = (yield asked, False).ids
        if self._learn_from == "assistant":
            ids, trained = yield from self._assistant(messages, tools)
            after = self._after(prompt_ids, ids)
            return ids, [one and other for one, other in zip(trained, after, strict=True)]
        text = self._rendered(messages, tools)
        if self._learn_from == "completion":
            check_prompt(prompt, asked, text)
        ids = (yield text, False).ids
        return ids, self._after(prompt_ids, ids)

    def _assistant(self, messages: Messages, tools: Any) -> Tokens:
        template = self._template(tools)

        def render(turns: Messages, answer: bool) -> str:
            return template.render(turns, tools, answer=answer)

        if template.marks_answers:
            text, spans = template.render_marked(messages, tools)
            self._checker.check(messages, text, spans, render)
        else:
            text = render(messages, False)
            spans = self._finder(template).spans(messages, text, render)
        encoded = yield text, False
        if encoded.encoding is None:
            trained = yield from trained_without_offsets(encoded.ids, text, spans)
        else:
            trained = trained_tokens(encoded.encoding, text, spans, exactly=not template.marks_answers)
        return encoded.ids, trained

    def _rendered(self, messages: Messages, tools: Any) -> str:
        """The whole text of which all that the assistant says is a part."""
        template = self._template(tools)
        text = template.render(messages, tools)
        check_answers(messages, text, lambda turns, answer: template.render(turns, tools, answer=answer))
        return text

    def _after(self, prompt: list[int], ids: list[int]) -> list[bool]:
        """What TRL takes for the completion: all from where the two part."""
        if self._learn_from == "all":
            return [True] * len(ids)
        length = common_prefix_length(prompt, ids)
        return [False] * length + [True] * (len(ids) - length)

    def _plain(self, text: str) -> Generator[Asked, Any, list[int]]:
        ids: list[int] = (yield text, True).ids
        bos = self._tokenizer.bos_token_id
        # The text may begin with the token that the tokenizer puts before it.
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def _encode(self, asked: Sequence[Asked]) -> list[Encoded]:
        made: dict[int, Encoded] = {}
        # A template writes the special tokens itself: with those of the tokenizer there would be two.
        for special in (False, True):
            places = [place for place, (_, wanted) in enumerate(asked) if wanted is special]
            if not places:
                continue
            batch = self._tokenizer(
                [asked[place][0] for place in places],
                add_special_tokens=special,
                return_attention_mask=False,
                verbose=False,
            )
            encodings = batch.encodings or [None] * len(places)
            made.update(zip(places, map(Encoded, batch["input_ids"], encodings), strict=True))
        return [made[place] for place in range(len(asked))]

    def _ended(self, text: str) -> str:
        end = self._tokenizer.eos_token
        return text if text.endswith(end) else text + end

    def _training_template(self) -> str | None:
        """TRL's own variant of the template, where it is needed and there is one."""
        own = self._tokenizer.chat_template
        if not own or marks_answers(self._tokenizer.get_chat_template(None)):
            return None
        try:
            patched: str | None = get_training_chat_template(self._tokenizer)
        except (TemplateError, *ERRORS):
            # TRL does not know it, or it fails on the tools that TRL tries it with.
            return None
        return patched

    def _template(self, tools: Any) -> ChatTemplate:
        """The template for a row with or without tools: some tokenizers have one for each."""
        if not self._tokenizer.chat_template:
            raise RowError(
                "no_template",
                "The tokenizer has no chat template to write a conversation with.",
                "Choose one (chat_template_path: chatml), or the instruct version of the model.",
            )
        template = self._templates.get(bool(tools))
        if template is None:
            text = self._patched or self._tokenizer.get_chat_template(None, tools)
            template = ChatTemplate(text, self._tokenizer.special_tokens_map)
            self._templates[bool(tools)] = template
        return template

    def _finder(self, template: ChatTemplate) -> TurnFinder:
        finder = self._finders.get(template.text)
        if finder is None:
            finder = self._finders[template.text] = TurnFinder(list(self._tokenizer.get_added_vocab()))
        return finder

    def _look_at(self, template: ChatTemplate) -> TemplateFacts:
        only_answers = self._learn_from == "assistant"

        def render(turns: Messages, answer: bool) -> str:
            return template.render(turns, answer=answer)

        try:
            if only_answers and template.marks_answers:
                _, spans = template.render_marked(PROBE)
            else:
                spans = self._finder(template).spans(PROBE, render(PROBE, False), render)
        except RowError as error:
            # Where every token is trained, turns need not be told apart.
            return unusable(error, told=only_answers or error.kind != "mask_unproven")
        return template_facts(template, self._tokenizer, spans, only_spans=only_answers)


def _tools_of(row: Mapping[str, Any]) -> Any:
    tools = row.get("tools")
    try:
        return (json.loads(tools) if isinstance(tools, str) else tools) or None
    except ValueError as error:
        raise RowError("wrong_form", "`tools` is a text that is not JSON.", "Write it as a list of tools.") from error


def _wrong_form(what: str) -> RowError:
    return RowError(
        "wrong_form",
        f"The row is {what}: there is nothing in it that the loss could be kept to.",
        "Turn assistant_only_loss and completion_only_loss off, or bring the rows into another form.",
    )
