"""The words of the starter's small world, shared by the pre-training text and the support dataset."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What a customer complains about: the sentence, the same seen by the shop, and the team it is for."""

    team: str
    told: str
    echoed: str


def _own(team: str, predicate: str) -> Problem:
    return Problem(team, f"My {{item}} {predicate}.", f"your {{item}} {predicate}")


TEAMS = ("delivery", "repair", "billing", "returns")

PROBLEMS = (
    _own("delivery", "is late"),
    _own("delivery", "has not arrived"),
    _own("delivery", "got lost in the post"),
    _own("delivery", "went to the wrong house"),
    Problem("delivery", "I am still waiting for my {item}.", "you are still waiting for your {item}"),
    _own("repair", "is broken"),
    _own("repair", "does not work"),
    _own("repair", "has stopped working"),
    _own("repair", "has a crack in it"),
    Problem("repair", "There is a part missing from my {item}.", "there is a part missing from your {item}"),
    Problem("billing", "I paid twice for my {item}.", "you paid twice for your {item}"),
    Problem("billing", "The bill for my {item} is wrong.", "the bill for your {item} is wrong"),
    Problem("billing", "You charged me too much for my {item}.", "we charged you too much for your {item}"),
    Problem("billing", "The price of my {item} was different.", "the price of your {item} was different"),
    _own("returns", "is too small"),
    _own("returns", "is the wrong colour"),
    Problem("returns", "I want to send my {item} back.", "you want to send your {item} back"),
    Problem("returns", "I do not want my {item} any more.", "you do not want your {item} any more"),
)

COMPLAINTS = (
    "{problem} The order number is {order}.",
    "{problem} My order number is {order}.",
    "{problem} It is order {order}.",
    "{problem} Please look at order {order}.",
    "Hello. {problem} The order number is {order}.",
    "Can you help me? {problem} My order is {order}.",
    "I have a problem with order {order}. {problem}",
    "Order {order}. {problem}",
    "This is about order {order}. {problem}",
)

ITEMS = (
    "parcel", "kettle", "lamp", "chair", "table", "bicycle", "clock", "camera", "phone", "radio",
    "jacket", "coat", "hat", "scarf", "sweater", "bag", "suitcase", "umbrella", "mirror", "carpet",
    "blanket", "pillow", "sofa", "bed", "shelf", "toaster", "oven", "fridge", "blender", "teapot",
    "guitar", "piano", "drum", "tent", "ladder", "hammer", "printer", "keyboard", "monitor", "watch",
    "desk lamp", "coffee machine", "garden chair", "travel bag", "rain coat", "kitchen table", "alarm clock",
    "picture frame",
)  # fmt: skip

NAMES = (
    "Anna", "Tom", "Maria", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivan", "Julia",
    "Karl", "Lucy", "Max", "Nina", "Oscar", "Paula", "Sam", "Vera",
)  # fmt: skip

TOWNS = ("Leeds", "York", "Bath", "Paris", "Rome", "Berlin", "Oslo", "Vienna", "Madrid", "Dublin", "Lisbon")

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey", "pink", "orange")

SIGNS = (
    "OPEN", "CLOSED", "EXIT", "STOP", "SALE", "BUSY", "FREE", "LOST", "FOUND", "DELIVERY", "REPAIR",
    "BILLING", "RETURNS", "TICKET",
)  # fmt: skip

FORMS = ("Card", "Note", "Memo", "Form", "Slip", "Entry", "Report", "File", "Case", "Message")

LABELS = ("name", "town", "colour", "item", "order", "day", "price", "ticket", "team", "note")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

COUNTING = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Norway": "Oslo", "Austria": "Vienna",
    "Spain": "Madrid", "Ireland": "Dublin", "Portugal": "Lisbon",
}  # fmt: skip

OPPOSITES = {
    "big": "small", "hot": "cold", "early": "late", "new": "old", "right": "wrong", "open": "closed",
    "full": "empty", "fast": "slow", "long": "short", "happy": "sad", "cheap": "expensive", "lost": "found",
}  # fmt: skip

COLOUR_OF = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow",
    "blood": "red", "chocolate": "brown", "an elephant": "grey", "a carrot": "orange",
}  # fmt: skip

USED_FOR = {
    "kettle": "boil water", "lamp": "light a room", "clock": "tell the time", "camera": "take pictures",
    "phone": "call people", "radio": "hear music", "umbrella": "stay dry", "mirror": "look at yourself",
    "bed": "sleep", "oven": "bake bread", "fridge": "keep food cold", "tent": "sleep outside",
    "ladder": "climb up", "hammer": "hit nails", "printer": "print pages", "suitcase": "pack your clothes",
}  # fmt: skip
