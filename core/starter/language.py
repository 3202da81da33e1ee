"""Pre-training text for the starter model: endless small conversations in a small English.

The text teaches the words, copying out of the user's message, and plain answers. It never shows a support ticket: that
is what fine-tuning on the support dataset adds.
"""

import random
from collections.abc import Callable, Iterator

from core.starter.words import (
    CAPITALS,
    COLOUR_OF,
    COLOURS,
    COMPLAINTS,
    COUNTING,
    DAYS,
    FORMS,
    ITEMS,
    LABELS,
    NAMES,
    OPPOSITES,
    PROBLEMS,
    SIGNS,
    TEAMS,
    TOWNS,
    USED_FOR,
)

Message = dict[str, str]
Exchange = tuple[str, str]
"""What the user says, and what the assistant answers."""

_SYLLABLES = (
    "ba", "bo", "da", "de", "fi", "fo", "ga", "go", "ka", "ku", "la", "lo", "mi", "mo", "na", "ne", "pa", "po",
    "ra", "ri", "sa", "su", "ta", "to", "va", "vi", "wo", "za", "ze", "plo", "bri", "gru", "sti",
)  # fmt: skip
_ENDINGS = ("", "", "n", "r", "l", "s", "x", "t", "ck", "nd")


def order_number(rng: random.Random) -> str:
    return str(rng.randrange(1000, 10000))


def invented_word(rng: random.Random) -> str:
    """A word nobody knows: it can only be copied letter by letter, so that items outside the list work too."""
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 3))) + rng.choice(_ENDINGS)


def _a(noun: str) -> str:
    """The noun with its indefinite article; a colour before the noun counts as its start."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _thing(rng: random.Random) -> str:
    return invented_word(rng) if rng.random() < 0.15 else rng.choice(ITEMS)


def _complaint(rng: random.Random) -> list[Exchange]:
    problem, item, order = rng.choice(PROBLEMS), _thing(rng), order_number(rng)
    told = rng.choice(COMPLAINTS).format(problem=problem.told.format(item=item), order=order)
    echoed = problem.echoed.format(item=item)
    if rng.random() < 0.15:
        told, answer = problem.told.format(item=item), f"I am sorry that {echoed}. What is the order number?"
        return [(told, answer), (f"It is {order}.", f"Thank you. I will look at order {order} for you.")]
    answer = f"I am sorry that {echoed}. I will look at order {order} for you."
    questions = [
        ("What is the order number?", f"The order number is {order}."),
        ("Which item is it?", f"It is the {item}."),
        ("What is the problem?", f"The problem is that {echoed}."),
        ("Who can help me?", f"The {problem.team} team can help you with your {item}."),
        ("Which team is that for?", f"That is for the {problem.team} team."),
        ("Thank you.", "You are welcome."),
    ]
    rng.shuffle(questions)
    if rng.random() < 0.3:
        question, direct_answer = questions[0]
        if question != "Thank you.":
            return [(f"{told} {question}", direct_answer)]
    return [(told, answer), *questions[: rng.randint(0, 3)]]


def _told(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A complaint and what is in it."""
    problem, item, order = rng.choice(PROBLEMS), _thing(rng), order_number(rng)
    told = rng.choice(COMPLAINTS).format(problem=problem.told.format(item=item), order=order)
    return told, {"item": item, "order": order, "team": problem.team, "TEAM": problem.team.upper()}


def _question_about_a_complaint(rng: random.Random) -> list[Exchange]:
    told, parts = _told(rng)
    asked = rng.sample(("item", "order", "team"), k=rng.randint(1, 3))
    return [
        rng.choice(
            [
                (f"{told} Note the {' and the '.join(asked)}.", ", ".join(f"{p}: {parts[p]}" for p in asked)),
                (f"{told} Which team is that for?", f"That is for the {parts['team']} team."),
                (f"{told} Which sign is over the right door?", f"It says {parts['TEAM']}."),
            ]
        )
    ]


def _form(rng: random.Random) -> list[tuple[str, str]]:
    """A form to fill in, as pairs of the text before a gap and what belongs into it.

    The forms differ in every respect, so that reading a complaint does not hang on one way to write it down. None of
    them is a ticket.
    """
    bar, colon = rng.choice((" | ", ", ", "; ", " / ")), rng.choice((": ", ": ", " = "))
    labels = {
        "item": rng.choice(("item", "thing", "product")),
        "order": rng.choice(("order", "number", "reference")),
        "team": rng.choice(("team", "for", "desk")),
    }
    if rng.random() < 0.6:
        start = [(f"{rng.choice(FORMS)}: ", "TEAM")]
        slots = rng.sample(("item", "order"), k=rng.randint(1, 2))
    else:
        start = []
        slots = rng.sample(sorted(labels), k=rng.randint(2, 3))
    gaps = start + [(labels[slot] + colon, slot) for slot in slots]
    return [(text if i == 0 else bar + text, slot) for i, (text, slot) in enumerate(gaps)]


def _empty(form: list[tuple[str, str]]) -> str:
    return "".join(f"{text}_" for text, _ in form)


def _filled(form: list[tuple[str, str]], parts: dict[str, str]) -> str:
    return "".join(text + parts[slot] for text, slot in form)


def _fill_in(rng: random.Random) -> list[Exchange]:
    form = _form(rng)
    first, second = _told(rng), _told(rng)
    exchanges = [
        (f"{first[0]} Fill in: {_empty(form)}", _filled(form, first[1])),
        (f"The same for this. {second[0]}", _filled(form, second[1])),
    ]
    return exchanges[: rng.randint(1, 2)]


def _fill_in_always(rng: random.Random) -> list[Message]:
    """A conversation whose system prompt holds the form."""
    form = _form(rng)
    messages = [{"role": "system", "content": f"Fill in: {_empty(form)}"}]
    for _ in range(rng.randint(1, 3)):
        told, parts = _told(rng)
        messages.append({"role": "user", "content": told})
        messages.append({"role": "assistant", "content": _filled(form, parts)})
    return messages


def _order(rng: random.Random) -> list[Exchange]:
    item, order, day = _thing(rng), order_number(rng), rng.choice(DAYS)
    return [
        (f"I would like to order {_a(item)}.", f"I can order {_a(item)} for you. When do you need it?"),
        (f"On {day}. Please use number {order}.", f"Your {item} is order {order}. It will come on {day}."),
        rng.choice(
            [
                (f"When will my {item} come?", f"Your {item} will come on {day}."),
                ("What is the order number?", f"The order number is {order}."),
                ("Which item is it?", f"It is the {item}."),
            ]
        ),
    ][: rng.randint(2, 3)]


def _span(rng: random.Random) -> str:
    """A few words and numbers in an order that means nothing, so that only copying gets them right."""
    pieces = [
        rng.choice([rng.choice(choices), rng.choice(choices), invented_word(rng), order_number(rng)])
        for choices in rng.choices((ITEMS, NAMES, SIGNS, COLOURS, LABELS, TOWNS), k=rng.randint(1, 5))
    ]
    return " ".join(pieces)


def _echo(rng: random.Random) -> list[Exchange]:
    span = _span(rng)
    if rng.random() < 0.25:
        span = rng.choice(PROBLEMS).told.format(item=_thing(rng))
    ask = rng.choice(["Please say: {}", "Say this again: {}", "Repeat after me: {}", "Read this out: {}"])
    return [(ask.format(span), span)]


def _capitals(rng: random.Random) -> list[Exchange]:
    word = rng.choice([sign.lower() for sign in SIGNS])
    if rng.random() < 0.5:
        return [(f"Write {word} in capitals.", word.upper())]
    place = rng.choice(["door", "window", "wall", "shop", "box"])
    return [(f"The sign on the {place} says {word.upper()}. What does it say?", f"It says {word.upper()}.")]


def _list(rng: random.Random) -> list[Exchange]:
    things = [_thing(rng) for _ in range(rng.randint(2, 4))]
    spoken = ", ".join(things[:-1]) + " and " + things[-1]
    return [(f"Write a list of {spoken}.", " | ".join(things))]


def _card(rng: random.Random) -> list[Exchange]:
    """A card with labels, so that colons and bars are known signs before fine-tuning gives them a use."""
    values: dict[str, Callable[[], str]] = {
        "name": lambda: rng.choice(NAMES),
        "town": lambda: rng.choice(TOWNS),
        "colour": lambda: rng.choice(COLOURS),
        "item": lambda: _thing(rng),
        "order": lambda: order_number(rng),
        "day": lambda: rng.choice(DAYS),
        "price": lambda: str(rng.randrange(2, 100)),
    }
    chosen = [(label, values[label]()) for label in rng.sample(sorted(values), k=rng.randint(1, 3))]
    spoken = " and ".join(f"the {label} is {value}" for label, value in chosen)
    return [(f"Write a card: {spoken}.", ", ".join(f"{label}: {value}" for label, value in chosen))]


def _fact(rng: random.Random) -> list[Exchange]:
    country, capital = rng.choice(list(CAPITALS.items()))
    word, opposite = rng.choice(list(OPPOSITES.items()))
    thing, colour = rng.choice(list(COLOUR_OF.items()))
    item, use = rng.choice(list(USED_FOR.items()))
    day = rng.randrange(7)
    number = rng.randrange(9)
    first, second = rng.randrange(1, 10), rng.randrange(1, 10)
    unknown = invented_word(rng)
    return [
        rng.choice(
            [
                (f"What is the capital of {country}?", f"The capital of {country} is {capital}."),
                (f"Which country is {capital} in?", f"{capital} is in {country}."),
                (f"What is the opposite of {word}?", f"The opposite of {word} is {opposite}."),
                (f"What colour is {thing}?", f"The colour of {thing} is {colour}."),
                (f"What is {_a(item)} for?", f"You use {_a(item)} to {use}."),
                (f"Which day comes after {DAYS[day]}?", f"After {DAYS[day]} comes {DAYS[(day + 1) % 7]}."),
                (f"What comes after {COUNTING[number]}?", f"After {COUNTING[number]} comes {COUNTING[number + 1]}."),
                (f"What is {first} plus {second}?", f"{first} plus {second} is {first + second}."),
                (f"What is {_a(unknown)}?", f"I am sorry, I do not know what {_a(unknown)} is."),
                ("Which teams are there?", "There are teams for " + ", ".join(TEAMS[:-1]) + f" and {TEAMS[-1]}."),
            ]
        )
    ]


def _small_talk(rng: random.Random) -> list[Exchange]:
    name, town, item, colour = rng.choice(NAMES), rng.choice(TOWNS), _thing(rng), rng.choice(COLOURS)
    talk = [
        (f"Hello, my name is {name}.", f"Hello {name}, nice to meet you."),
        rng.choice([("How are you?", "I am fine, thank you."), ("Hello.", "Hello, how can I help you?")]),
        (f"I live in {town}.", f"{town} is a nice place to live."),
        (f"I have {_a(colour + ' ' + item)}.", f"{_a(colour + ' ' + item).capitalize()} sounds lovely."),
        (f"I bought a ticket to {town}.", f"Have a good trip to {town}."),
        (f"My {item} is new.", f"I am glad that your {item} is new."),
        (f"I like my {item}.", f"I am glad that you like your {item}."),
    ]
    memory = [
        ("What is my name?", f"Your name is {name}."),
        ("Where do I live?", f"You live in {town}."),
        (f"What colour is my {item}?", f"Your {item} is {colour}."),
    ]
    start = rng.randrange(len(talk))
    if rng.random() < 0.4:
        which = rng.randrange(3)
        return [talk[(0, 2, 3)[which]], memory[which]]
    return [talk[start], *rng.sample(talk[1:3], k=rng.randint(0, 1))]


def _story(rng: random.Random) -> list[Exchange]:
    people, things = rng.sample(NAMES, k=2), rng.sample(ITEMS, k=2)
    colours = rng.choices(COLOURS, k=2)
    told = " ".join(f"{p} has {_a(c + ' ' + t)}." for p, c, t in zip(people, colours, things, strict=True))
    which = rng.randrange(2)
    person, colour, thing = people[which], colours[which], things[which]
    question, answer = rng.choice(
        [
            (f"Who has the {thing}?", f"{person} has the {thing}."),
            (f"What does {person} have?", f"{person} has {_a(colour + ' ' + thing)}."),
            (f"What colour is the {thing}?", f"The {thing} is {colour}."),
        ]
    )
    return [(f"{told} {question}", answer)]


_TOPICS: tuple[tuple[Callable[[random.Random], list[Exchange]], int], ...] = (
    (_complaint, 30),
    (_question_about_a_complaint, 12),
    (_fill_in, 18),
    (_order, 6),
    (_echo, 12),
    (_capitals, 4),
    (_list, 4),
    (_card, 4),
    (_fact, 8),
    (_small_talk, 7),
    (_story, 4),
)
_SYSTEM_PROMPTS = (
    "You are a friendly assistant.",
    "You are a helpful assistant.",
    "You work in a shop.",
    "Answer in plain English.",
)


def conversation(rng: random.Random) -> list[Message]:
    """One conversation of one to three topics, as chat messages; a third of them open with a system prompt."""
    if rng.random() < 0.15:
        return _fill_in_always(rng)
    topics, weights = zip(*_TOPICS, strict=True)
    messages: list[Message] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)})
    for topic in rng.choices(topics, weights, k=rng.choices((1, 2, 3), (6, 2, 1))[0]):
        for asked, answered in topic(rng):
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answered})
    return messages


def conversations(count: int, seed: int) -> Iterator[list[Message]]:
    """The same `count` conversations for the same seed, on every machine."""
    rng = random.Random(seed)
    for _ in range(count):
        yield conversation(rng)
