"""How options are declared, and what is read out of their declaration: to be shown, parsed or documented."""

import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import BaseModel

Group = Literal["model", "data", "precision", "adapter", "optimizer", "schedule", "run"]


@dataclass(frozen=True, slots=True)
class Label:
    """How an option is called and explained to people."""

    group: Group
    title: str
    help: str
    others: str = ""
    """In words, what a value may be besides the choices."""


@dataclass(frozen=True, slots=True)
class Option:
    """One declared option, ready to be shown, parsed or documented."""

    name: str
    """Dotted for those under `sftui`."""
    group: Group
    title: str
    help: str
    default: Any
    choices: tuple[str, ...]
    others: str
    """In words, what a value may be besides the choices; empty where it must be one of them."""
    kinds: tuple[type, ...]
    """Which plain types a value may have: bool, int, float, str, list, dict."""
    optional: bool
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    exclusive_maximum: float | None = None

    def allowed(self) -> str:
        """What a value may be, in words."""
        parts: list[str] = []
        if self.choices:
            parts.append("one of " + ", ".join(self.choices))
            parts += [self.others] if self.others else []
        elif bool in self.kinds:
            parts.append("true or false")
        elif int in self.kinds and float not in self.kinds:
            parts.append("a whole number" + self._range())
        elif float in self.kinds:
            parts.append("a number" + self._range())
        elif str in self.kinds:
            parts.append("text")
        if list in self.kinds:
            parts.append("a list")
        if dict in self.kinds:
            parts.append("`name: value` lines")
        if self.optional:
            parts.append("nothing")
        return " or ".join(parts)

    def _range(self) -> str:
        bounds = (
            ("at least", self.minimum),
            ("above", self.exclusive_minimum),
            ("at most", self.maximum),
            ("below", self.exclusive_maximum),
        )
        words = [f"{word} {bound:.10g}" for word, bound in bounds if bound is not None]
        return (", " if words else "") + " and ".join(words)


def declared_options(model: type[BaseModel], prefix: str = "") -> list[tuple[str, Option | None]]:
    """Every field by its name after the prefix, with the option that it declares; None without a Label."""
    hints = typing.get_type_hints(model, include_extras=True)
    return [
        (prefix + name, _option(prefix + name, hints[name], field.get_default(call_default_factory=True)))
        for name, field in model.model_fields.items()
    ]


def _option(name: str, hint: Any, default: Any) -> Option | None:
    kinds: list[type] = []
    choices: list[str] = []
    found: dict[str, Any] = {}

    def walk(part: Any) -> None:
        origin, arguments = typing.get_origin(part), typing.get_args(part)
        if origin is Annotated:
            walk(arguments[0])
            for note in arguments[1:]:
                if isinstance(note, Label):
                    found["label"] = note
                else:
                    found.update(_bounds(note))
        elif origin is Literal:
            choices.extend(str(choice) for choice in arguments)
            kinds.append(str)
        elif origin in (list, dict):
            kinds.append(origin)
        elif arguments:
            for inner in arguments:
                walk(inner)
        elif part is type(None):
            found["optional"] = True
        elif isinstance(part, type):
            kinds.append(part)

    walk(hint)
    label = found.pop("label", None)
    if label is None:
        return None
    return Option(
        name=name,
        group=label.group,
        title=label.title,
        help=label.help,
        default=default,
        choices=tuple(choices),
        others=label.others,
        kinds=tuple(kinds),
        optional=found.pop("optional", False),
        **found,
    )


def _bounds(note: Any) -> dict[str, float]:
    names = {
        annotated_types.Ge: ("minimum", "ge"),
        annotated_types.Gt: ("exclusive_minimum", "gt"),
        annotated_types.Le: ("maximum", "le"),
        annotated_types.Lt: ("exclusive_maximum", "lt"),
    }
    return {
        names[type(bound)][0]: getattr(bound, names[type(bound)][1])
        for bound in getattr(note, "metadata", ())
        if type(bound) in names
    }
