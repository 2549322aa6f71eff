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
        "my {p} has not arrived yet.",
        "the {p} is {n} days late.",
        "I still wait for the delivery of the {p}.",
        "my {p} was due on {day} and is late.",
        "the delivery of my {p} takes too long.",
    ),
    "broken": (
        "my {p} arrived broken.",
        "the {p} was damaged when it came on {day}.",
        "my {p} stopped working after {n} days.",
        "the {p} does not work.",
        "I got a broken {p}.",
    ),
    "missing": (
        "my {p} came with a part missing.",
        "{n} screws of the {p} are missing.",
        "the box of the {p} was incomplete.",
        "the cable of my {p} is missing.",
        "the {p} came incomplete on {day}.",
    ),
    "refund": (
        "I want a refund for the {p}.",
        "I want my money back for the {p}.",
        "I sent the {p} back {n} days ago and got no refund.",
        "when do I get the refund for my {p}?",
        "you owe me money back for my {p}.",
    ),
    "cancel": (
        "please cancel my {p}.",
        "I want to cancel the {p} I chose on {day}.",
        "can I still cancel the {p}?",
        "I no longer want the {p}.",
        "my {p} should be canceled.",
    ),
    "invoice": (
        "I need an invoice for the {p}.",
        "can you send the invoice of my {p}?",
        "there was no receipt with my {p}.",
        "I lost the receipt for the {p}.",
        "the invoice of the {p} from {day} has a wrong name.",
    ),
    "address": (
        "please send the {p} to my new address.",
        "I moved to {city}, so the {p} needs a new address.",
        "the address for my {p} is wrong.",
        "can you change the address for the {p}?",
        "my {p} must go to my address in {city}.",
    ),
    "charge": (
        "I was charged twice for the {p}.",
        "I see two charges for my {p}.",
        "my card was charged {n} times for the {p}.",
        "you charged too much for my {p}.",
        "why was I charged for the {p} again?",
    ),
}

# topic -> how an agent takes it up
ANSWERS: dict[str, tuple[str, ...]] = {
    "late": (
        "Your {p} is late.",
        "The delivery of your {p} is late.",
        "There is a delay with your {p}.",
    ),
    "broken": (
        "Your {p} is broken.",
        "We see that your {p} was damaged.",
        "There is damage to your {p}.",
    ),
    "missing": (
        "Your {p} came incomplete.",
        "We see that a part of your {p} is missing.",
        "There is a part missing from your {p}.",
    ),
    "refund": (
        "Your {p} will be refunded.",
        "The refund for your {p} is on its way.",
        "There is a refund for your {p}.",
    ),
    "cancel": (
        "Your {p} is canceled.",
        "We canceled your {p}.",
        "There is nothing to pay, as your {p} is canceled.",
    ),
    "invoice": (
        "Your {p} has a new invoice.",
        "The invoice for your {p} is ready.",
        "We made a new receipt for your {p}.",
    ),
    "address": (
        "Your {p} will go to the right address.",
        "The address for your {p} is changed.",
        "We have the new address for your {p}.",
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

GREETINGS = ("Hi,", "Hello,", "Dear team,", "Good morning,", "Good evening,", "Hey there,")
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
)
CITIES = ("Boston", "Denver", "Dallas", "Miami", "Seattle", "Chicago")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
KIN = ("mother", "father", "sister", "brother", "son", "daughter")

OPENINGS = (
    "Thank you for your message.",
    "Thanks for writing to us.",
    "We are sorry for the trouble.",
    "Sorry about this.",
)
CLOSINGS = (
    "Have a nice day!",
    "Kind regards from our team.",
    "All the best to you!",
    "Take good care!",
)
STEPS = (
    "We will call you on {day}.",
    "We will write to you by {day}.",
    "Our team will call you today.",
    "Please send us a photo by {day}.",
    "Please call us on {day}.",
)
ASIDES = (
    "Our shop has been here for many years.",
    "It rains a lot at this time of year.",
    "Many people like our blue boxes.",
    "We all know how such things go.",
    "Some say that every day is new.",
    "Our office has a very nice garden.",
)
