"""Pairs of questions that look alike and are not: the hard negatives of semantic caching, generated.

Every pair comes with the kind of change that was made. The generator draws with a fixed seed, and never
gives a pair twice.
"""

from __future__ import annotations

import random


def words(text):
    return text.split()


CITIES = words(
    "Paris London Berlin Tokyo Madrid Oslo Vienna Lisbon Dublin Athens Warsaw Prague Rome Cairo Lima"
)
TWO_WORDS = ["New York", "San Diego", "Hong Kong", "Buenos Aires", "Cape Town", "Santa Fe"]
COMPANIES = words("Acme Globex Initech Umbrella Hooli Soylent Tyrell Cyberdyne Vandelay Wonka")
PEOPLE = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether", "Kurt Gödel", "Mary Shelley"]
PRODUCTS = words("gpt-4o gpt-5 rtx4090 iPhone PS5 A320 B737 USB3 HDMI2 e10")
FOODS = words("rice bread cheese salmon tofu lentils pasta yogurt spinach mushrooms")
ANIMALS = words("cats dogs horses rabbits snakes parrots turtles goats spiders sharks")
VERBS = words("cancel renew upgrade transfer refund pause extend merge export archive")
THINGS = words("subscription order invoice booking policy contract account ticket voucher parcel")
PORTS = [22, 25, 53, 80, 110, 143, 443, 993, 3306, 5432, 6379, 8080, 9200, 27017]
UNITS = ["km", "miles", "kg", "pounds", "litres", "gallons", "hours", "minutes", "metres", "feet", "GB", "MB"]
MONTHS = words("January February March April June July August September October November December")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
FUNCTIONS = words("parse_json read_csv to_dict get_user load_model save_state fetch_all run_job")
LANGUAGES = words("Python Rust Java Kotlin Swift Haskell Elixir Ruby")
SITES = ["example.com", "example.org", "docs.example.net", "shop.example.com", "api.example.io"]
POLES = [
    ("open", "closed"), ("enabled", "disabled"), ("allowed", "forbidden"), ("legal", "illegal"),
    ("before", "after"), ("above", "below"), ("highest", "lowest"), ("cheapest", "most expensive"),
    ("encrypt", "decrypt"), ("increase", "decrease"), ("import", "export"), ("safe", "dangerous"),
    ("install", "uninstall"), ("buy", "sell"), ("with", "without"), ("possible", "impossible"),
    ("hot", "cold"), ("first", "last"), ("minimum", "maximum"), ("upload", "download"),
]  # fmt: skip


def _different(draw, items):
    return draw.sample(items, 2)


def numbers(draw):
    a, b = draw.sample(range(2, 4000), 2)
    city = draw.choice(CITIES)
    template = draw.choice([
        "how long does it take to walk {} km in {c}", "what is {} percent of 4500",
            "convert {} euros to dollars please",
        "which hotel in {c} has {} rooms",
            "give me {} ideas for a weekend in {c}", "who won the {} world cup",
        "what is the square root of {}", "list the top {} restaurants of {c}",
            "is {} a prime number?",
        "Summarise the report in {} words for the team in {c}",
            "wie viel ist {} mal 12", "{}人で行くレストラン",
    ])  # fmt: skip
    return template.format(a, c=city), template.format(b, c=city)


def decimals(draw):
    a = draw.randint(1, 99)
    b, c = draw.sample(range(1, 99), 2)
    template = draw.choice(
        ["is a pH of {} acid", "what does version {} change", "what is {}% of 80", "take -{} degrees"]
    )
    return template.format(f"{a}.{b}"), template.format(f"{a}.{c}")


def number_words(draw):
    a, b = _different(draw, words("two three four five six seven eight nine ten twelve twenty fifty"))
    template = draw.choice(
        ["a table for {} people tonight", "name {} famous bridges", "the rule of {} explained"]
    )
    return template.format(a), template.format(b)


def negations(draw):
    thing, verb = draw.choice(THINGS), draw.choice(VERBS)
    one, two = draw.choice([
        ("can I {v} my {t}", "can I not {v} my {t}"),
        ("why can I {v} the {t}", "why can't I {v} the {t}"),
        ("should I {v} a {t} when it is late", "should I never {v} a {t} when it is late"),
        ("which {t} can I {v}", "which {t} can I not {v}"),
        ("I want to {v} the {t} with a fee", "I want to {v} the {t} without a fee"),
        ("darf ich den {t} ändern, den ich habe", "darf ich den {t} nicht ändern, den ich habe"),
        ("does it work when I {v} the {t}", "doesn't it work when I {v} the {t}"),
        ("please {v} every {t}", "please {v} no {t}"),
        ("¿puedo cambiar mi {t} {v}?", "¿no puedo cambiar mi {t} {v}?"),
        ("foods to eat for a {t} to {v}", "foods not to eat for a {t} to {v}"),
    ])  # fmt: skip
    return one.format(v=verb, t=thing), two.format(v=verb, t=thing)


def polarity(draw):
    one, two = draw.choice(POLES)
    port, city = draw.choice(PORTS), draw.choice(CITIES)
    template = draw.choice([
        "is port {p} {} by default", "tell me about what is {} in {c} at {p}",
            "how do I find the {} option of tool {p}",
        "why would anybody want it {} there, near {c}, in {p}",
    ])  # fmt: skip
    return template.format(one, p=port, c=city), template.format(two, p=port, c=city)


def entities(draw):
    pool = draw.choice(
        [CITIES, COMPANIES, PEOPLE, TWO_WORDS, PRODUCTS, LANGUAGES, CITIES + TWO_WORDS + PEOPLE]
    )
    a, b = _different(draw, pool)
    template = draw.choice([
        "what is the history of {}", "Who founded {} and when was that", "tell me more about {} please",
        "is {} worth the money compared with others", "Wie groß ist {} heute", "How many people like {}?",
        "what should I know about {} before I go there", "{} explained to a child",
    ])  # fmt: skip
    return template.format(a), template.format(b)


def swapped(draw):
    pool = draw.choice([CITIES, COMPANIES, PEOPLE, ANIMALS, FOODS])
    a, b = _different(draw, pool)
    template = draw.choice([
        "cheap flights from {} to {}", "did {} really buy {}", "which is bigger, {} or the home of {}",
        "do {} eat {}", "how to get from {} to {} by train", "is {} better for me than {}",
    ])  # fmt: skip
    return template.format(a, b), template.format(b, a)


def lower_case(draw):
    pool = draw.choice([FOODS, ANIMALS, THINGS, VERBS, [city.lower() for city in CITIES + TWO_WORDS]])
    a, b = _different(draw, pool)
    template = draw.choice([
        "what is the weather like for {} tomorrow", "how much protein is in {}",
            "are {} dangerous to children",
        "tell me how to keep {} fresh", "what do {} cost", "i would like to know about {} in winter",
    ])  # fmt: skip
    return template.format(a), template.format(b)


def qualified(draw):
    thing, word = (
        draw.choice(THINGS),
        draw.choice(words("inactive expired foreign unpaid blocked shared premium")),
    )
    template = draw.choice(["show me every {}", "how many of my {} are there", "who can see each {} here"])
    return template.format(thing), template.format(f"{word} {thing}")


def dates(draw):
    a, b = _different(
        draw, draw.choice([MONTHS, DAYS, ["today", "tomorrow", "yesterday"], ["last week", "next week"]])
    )
    template = draw.choice(
        ["what happened in {} in my town", "is the shop open {}", "remind me of the meeting {} please"]
    )
    return template.format(a), template.format(b)


def units(draw):
    a, b = _different(draw, UNITS)
    number = draw.randint(2, 900)
    template = draw.choice(
        ["how far is {n} {} really", "is {n} {} a lot for one person", "turn {n} {} into something"]
    )
    return template.format(a, n=number), template.format(b, n=number)


def quotes(draw):
    a, b = _different(draw, FOODS + ANIMALS + THINGS)
    left, right = draw.choice(['""', "“”", "«»", "''", "„“", "「」"])
    template = draw.choice(
        ["translate {} into French", "what does {} mean in the law", "is {} the name of a song"]
    )
    return template.format(f"{left}the {a}{right}"), template.format(f"{left}the {b}{right}")


def code(draw):
    a, b = _different(draw, FUNCTIONS)
    one, two = draw.choice([
        (f"what does `{a}(x)` return", f"what does `{b}(x)` return"),
        (f"why is {a} so slow", f"why is {b} so slow"),
        ("what is 12 + 7", "what is 12 * 7"), ("is x > y when sorted", "is x < y when sorted"),
        ("explain `if a == b: pass`", "explain `if a != b: pass`"),
            ("what does git --force do", "what does git --amend do"),
        ("where is /etc/hosts from", "where is /etc/fstab from"),
            (f"teach me C++ with {a}", f"teach me C# with {a}"),
        (f"```\n{a}(1)\n```\nfix it", f"```\n{b}(1)\n```\nfix it"),
    ])  # fmt: skip
    return one, two


def urls(draw):
    a, b = _different(draw, SITES)
    template = draw.choice(
        ["summarise https://{}/page for me", "is {} down", "write to help@{} about it", "open www.{}/x"]
    )
    return template.format(a), template.format(b)


KINDS = (
    numbers, decimals, number_words, negations, polarity, entities, swapped, lower_case, qualified,
    dates, units, quotes, code, urls,
)  # fmt: skip


def near_misses(count: int, seed: int = 7) -> list[tuple[str, str, str]]:
    """(kind, question, other question), all different."""
    draw = random.Random(seed)
    found: dict[tuple[str, str], str] = {}
    turn = 0
    while len(found) < count:
        kind = KINDS[turn % len(KINDS)]
        turn += 1
        found.setdefault(kind(draw), kind.__name__)
    return [(kind, one, two) for (one, two), kind in found.items()]
