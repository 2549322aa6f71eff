"""The words of the `support` task: what customers and agents say. Tables only, no logic.

Each product is one common word, so that a small byte-level BPE makes one token of it and answering about the right
product means copying one token from the message. Signs are the words by which a topic is recognized; no opening, next
step, aside or closing contains one.
"""

from __future__ import annotations

PRODUCTS = (
    "kettle",
    "lamp",
    "toaster",
    "blender",
    "heater",
    "radio",
    "camera",
    "printer",
    "drill",
    "clock",
    "speaker",
    "scale",
)

# topic -> what the customer writes; {p} is the product, {n} a small number, {city} and {day} what they say
PROBLEMS: dict[str, tuple[str, ...]] = {
    "late": (
        "my {p} has not arrived.",
        "the {p} is {n} days late.",
        "I still wait for delivery of the {p}.",
        "my {p} was due on {day} and is late.",
        "the delivery of my {p} takes long.",
    ),
    "broken": (
        "my {p} arrived broken.",
        "the {p} was damaged on {day}.",
        "my {p} stopped working after {n} days.",
        "the {p} does not work.",
        "I got a broken {p}.",
    ),
    "missing": (
        "a part of my {p} is missing.",
        "{n} screws of the {p} are missing.",
        "the {p} is incomplete.",
        "the cable of my {p} is missing.",
        "the {p} came incomplete on {day}.",
    ),
    "refund": (
        "I want a refund for the {p}.",
        "I want my money back for the {p}.",
        "I sent the {p} back on {day} and got no refund.",
        "when is the refund for my {p}?",
        "you owe me {n} dollars refund for my {p}.",
    ),
    "cancel": (
        "please cancel my {p}.",
        "I want to cancel the {p}.",
        "can I cancel the {p} by {day}?",
        "I no longer want the {p}.",
        "my {p} should be canceled.",
    ),
    "invoice": (
        "I need an invoice for the {p}.",
        "please send the invoice of my {p}.",
        "my {p} came without a receipt.",
        "I lost the receipt for the {p}.",
        "the invoice of the {p} from {day} is wrong.",
    ),
    "address": (
        "please send the {p} to my new address.",
        "the {p} needs a new address in {city}.",
        "the address for my {p} is wrong.",
        "please change the address for the {p}.",
        "my {p} must go to my address in {city}.",
    ),
    "charge": (
        "I was charged twice for the {p}.",
        "I see two charges for my {p}.",
        "my card was charged {n} times for the {p}.",
        "you charged too much for my {p}.",
        "why was I charged for the {p} on {day}?",
    ),
}

# topic -> how an agent takes it up
ANSWERS: dict[str, tuple[str, ...]] = {
    "late": ("Your {p} is late.", "The delivery of your {p} is late.", "There is a delay with your {p}."),
    "broken": ("Your {p} is broken.", "We see your {p} was damaged.", "There is damage to your {p}."),
    "missing": ("Your {p} is incomplete.", "A part of your {p} is missing.", "There is a part missing from your {p}."),
    "refund": ("Your {p} is refunded.", "The refund for your {p} is coming.", "There is a refund for your {p}."),
    "cancel": ("Your {p} is canceled.", "We canceled your {p}.", "The order of your {p} is canceled."),
    "invoice": ("Your {p} has a new invoice.", "The invoice for your {p} is ready.", "We have a receipt for your {p}."),
    "address": (
        "Your {p} has a new address.",
        "The address for your {p} is changed.",
        "We have the right address for your {p}.",
    ),
    "charge": (
        "Your {p} was charged wrongly.",
        "The charge for your {p} was a mistake.",
        "We see the wrong charge for your {p}.",
    ),
}

# topic -> regular expressions that show it, in messages and in answers alike
SIGNS: dict[str, tuple[str, ...]] = {
    "late": (r"late", r"delay(?:ed)?", r"not arrived", r"delivery"),
    "broken": (r"broken", r"damaged?", r"(?:not|stopped) work(?:ing)?", r"faulty"),
    "missing": (r"missing", r"incomplete"),
    "refund": (r"refund(?:ed|s)?", r"money back"),
    "cancel": (r"cancel(?:l?ed|s)?", r"no longer want"),
    "invoice": (r"invoices?", r"receipts?"),
    "address": (r"address(?:es)?",),
    "charge": (r"charge[ds]?", r"overcharged"),
}

GREETINGS = ("Hi,", "Hello,", "Dear team,", "Good morning,")
NAMES = (
    "Ana",
    "Ben",
    "Chloe",
    "Dan",
    "Eva",
    "Finn",
    "Gita",
    "Hugo",
    "Ines",
    "Jack",
    "Kim",
    "Leo",
    "Mia",
    "Nora",
    "Omar",
    "Paul",
    "Rosa",
    "Sam",
    "Tom",
    "Zoe",
    "Amy",
    "Bob",
    "Carl",
    "Dora",
    "Emil",
    "Fay",
    "Gus",
    "Ida",
)
CITIES = ("Boston", "Denver", "Dallas", "Miami", "Seattle", "Chicago")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

OPENINGS = (
    "Thanks for writing.",
    "Thank you for asking.",
    "Sorry about this.",
    "We are very sorry.",
)
CLOSINGS = (
    "Have a nice day!",
    "Kind regards!",
    "All the best!",
    "Take care!",
)
STEPS = (
    "We will call you on {day}.",
    "We will write by {day}.",
    "Our team will call today.",
    "Please send a photo by {day}.",
    "Please call us on {day}.",
)
ASIDES = (
    "It rains a lot here.",
    "Our shop is very old.",
    "Many people like blue boxes.",
    "Life is full of surprises.",
    "We had cake at noon.",
    "Our garden looks nice.",
)
