"""Guards: what two texts must have in common before the answer to one may be the answer to the other.

Embeddings put "is port 6379 open by default" and "is port 6379 closed by default" at a cosine of 0.98, and
no threshold separates such a pair from a paraphrase. So a hit has to pass these as well; each can be
switched off, and each says how often it said no.

    numbers    the same figures in the same order: digits, signs, number words
    dates      the same days, months and words of time
    units      the same units, currencies and signs beside figures
    quotes     the same quoted texts
    code       the same code, identifiers, operators and symbols
    urls       the same addresses
    negation   the same negations, and the same sides of opposites: open and closed, before and after
    names      the same names: capitalised inside a sentence, in capitals, mixed with digits
    words      no minimal pair: texts that differ by one or two words of substance, or by order alone, are
               how questions differ rather than how people say the same thing

Guards compare *features*: for each guard a digest, and for the last two the digests of the words. The text
itself is nowhere kept. All err on the side of a veto: it costs a provider call, its absence a wrong answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Final, cast

from askonce._errors import not_allowed
from askonce.semantic._words import (
    DATES,
    FUNCTION_WORDS,
    NEGATIONS,
    NUMBER_WORDS,
    OPPOSITES,
    UNITS,
)

_DIGESTED: Final = ("numbers", "dates", "units", "quotes", "code", "urls", "negation")
GUARDS: Final = (*_DIGESTED, "names", "words")
"""All of them, in the order in which they are asked."""

MOST_WORDS: Final = 256
"""A longer turn is a document rather than a question: it is not compared by meaning."""

MOST_CHARACTERS: Final = 2000
"""Likewise. It also bounds the time that any text can take."""

_URL = re.compile(
    r"\b(?:[a-z][a-z0-9+.-]*://|www\.)[^\s<>\"']+|[\w.+-]+@[\w-]+\.[\w.-]+|\b(?:[\w-]+\.)+[a-z]{2,}(?:/[^\s]*)?",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_QUOTED = re.compile(
    r"\"([^\"\n]*)\"|“([^”]*)”|„([^“”]*)[“”]|«([^»]*)»|「([^」]*)」|『([^』]*)』|(?<!\w)'([^'\n]+)'(?!\w)|(?<!\w)\u2018([^\u2019\n]+)\u2019(?!\w)"
)
_IDENTIFIER = re.compile(
    r"\b(?=\w*[a-z][A-Z])\w+|\b\w*_\w*|\b\w+\(\)?|(?<!\w)--?[a-zA-Z][\w-]*"
    r"|(?:\.{0,2}/)[\w./-]+|\b\w+(?:(?:::|->|\.)\w+)+"
)
# What a text without any identifier, quotation, address or figure does not have: asked first, it is cheap.
_MAYBE_IDENTIFIER = re.compile(r"[_(/:>]|--|\w\.\w|[a-z][A-Z]|(?<!\w)-[a-zA-Z]")
_MAYBE_QUOTED = re.compile("[\"'“„«「『\u2018]")
_MAYBE_URL = re.compile(r"://|@|\w\.\w")
_MAYBE_FIGURE = re.compile(r"\d")
_NUMBER = re.compile(r"(?<!\w)[-+\u2212]?\d+(?:[.,:/-]\d+)*|\d+(?:[.,:]\d+)*")
_FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")
_AFTER = re.compile(r"[\s-]?([^\W\d_]+|[%‰°\u2032\u2033])")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*[+#]*")
_SYMBOLS = re.compile(r"[#%&*@/\\_^|~+=<>{}\[\]]")
_SIGNS: Final = ("Sm", "So")
_MIXED = re.compile(r"\d[^\W\d]|[^\W\d]\d")
_SENTENCE_ENDS: Final = frozenset([*".!?:\n…。¿¡", ""])
_TOKEN = Struct("<I")
_EACH: Final = 4
_NAMED: Final = 1
_CONTENT: Final = 2
_FLAGS: Final = 3
_CLOSE: Final = 2
_SYMBOL: Final = 3  # letters of a unit that means something only beside a figure, as in "5 in"
_DATE, _UNIT, _POLE, _NUMBER_WORD = 1, 2, 4, 8
_KINDS: Final = {
    word: sum(
        kind
        for kind, words in (
            (_DATE, DATES),
            (_UNIT, {unit for unit in UNITS if len(unit) > _SYMBOL}),
            (_POLE, NEGATIONS | OPPOSITES),
            (_NUMBER_WORD, NUMBER_WORDS),
        )
        if word in words
    )
    for word in DATES | UNITS | NEGATIONS | OPPOSITES | NUMBER_WORDS.keys()
}
"""Which guards a word is for: looked up once for each word of a text."""


class TooLong(Exception):
    """The text has more words than are compared."""


def checked_guards(guards: object) -> frozenset[str]:
    """The names of the guards that are on.

    Raises:
        ConfigurationError: for a name that is none.
    """
    if guards is True:
        return frozenset(GUARDS)
    if guards is False:
        return frozenset()
    allowed = f"True (all), False (none), or some of {', '.join(GUARDS)}"
    if isinstance(guards, str) or not isinstance(guards, Iterable):
        raise not_allowed("guards", cast("object", guards), allowed)
    names = frozenset(cast("Iterable[object]", guards))
    if not names <= frozenset(GUARDS):
        raise not_allowed("guards", sorted(map(str, names)), allowed)
    return frozenset(str(name) for name in names)


def features(text: str, key: bytes) -> bytes:
    """What the guards compare, of one text.

    Args:
        text: of the last user turn.
        key: makes the digests those of one partition; at most 64 bytes.

    Raises:
        TooLong: more than 256 words, or 2,000 characters.
    """
    if len(text) > MOST_CHARACTERS:
        raise TooLong
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        if len(text) > MOST_CHARACTERS:  # one sign can stand for eighteen
            raise TooLong
    tokens = _split(text)
    if len(tokens) > MOST_WORDS:
        raise TooLong
    folded = [word.casefold() for word, _ in tokens]
    if "\u2019" in text:
        folded = [word.replace("\u2019", "'") for word in folded]
    known = [(word, kind) for word in folded if (kind := _KINDS.get(word))]
    if any(word.endswith("n't") for word in folded):
        known = [("not", _POLE) if word.endswith("n't") else (word, _KINDS.get(word, 0)) for word in folded]
    figures = _MAYBE_FIGURE.search(text) is not None
    parts = [
        _digest(key, items)
        for items in (
            _numbers(text, known, figures=figures),
            [word for word, kind in known if kind & _DATE],
            _units(text, known, figures=figures),
            _quoted(text) if _MAYBE_QUOTED.search(text) else [],
            _code(text),
            _urls(text) if _MAYBE_URL.search(text) else [],
            [word for word, kind in known if kind & _POLE],
        )
    ]
    shouts = text.isupper() or (
        not text.islower() and sum(map(str.isupper, text)) > sum(map(str.islower, text))
    )
    mixed = figures and _MIXED.search(text) is not None
    words: list[bytes] = []
    for (word, start), low in zip(tokens, folded, strict=True):
        named = mixed and _MIXED.search(low) is not None
        if not named and word != low and not shouts:
            named = _is_name(text, word, start)
        words.append(_word(key, word, low, named))
    return b"".join((*parts, *words))


def veto(asked: bytes, stored: bytes, on: frozenset[str]) -> str:
    """The first guard that says no; "" when none does. Takes what `features` gave, under the same key."""
    for place, name in enumerate(_DIGESTED):
        here = slice(place * _EACH, (place + 1) * _EACH)
        if asked[here] != stored[here] and name in on:
            return name
    start = len(_DIGESTED) * _EACH
    if asked[start:] == stored[start:] or not on & {"names", "words"}:
        return ""
    one, two = _tokens(asked[start:]), _tokens(stored[start:])
    if "names" in on and _named(one, two) != _named(two, one):
        return "names"
    if "words" in on and _is_minimal_pair(one, two):
        return "words"
    return ""


def _digest(key: bytes, items: list[str]) -> bytes:
    if not items:
        return b"\0\0\0\0"
    content = "\0".join(items).encode("utf-8", "surrogatepass")
    return blake2b(content, digest_size=_EACH, key=key).digest()


def _split(text: str) -> list[tuple[str, int]]:
    """The words of a text, each with where it begins.

    Scripts without blanks between words are taken character by character.
    """
    if text.isascii():
        if text.islower():  # no capitals: where words are makes no difference
            return [(word, 0) for word in _WORD.findall(text)]
        return [(found[0], found.start()) for found in _WORD.finditer(text)]
    tokens: list[tuple[str, int]] = []
    for found in _WORD.finditer(text):
        run = found[0]
        if any(map(_is_unspaced, run)):
            tokens += [(char, found.start()) for char in run]
        else:
            tokens.append((run, found.start()))
    return tokens


def _is_unspaced(char: str) -> bool:
    """Chinese, Japanese, Thai, Lao, Khmer, Burmese."""
    return (
        "\u0e00" <= char <= "\u0eff"
        or "\u1000" <= char <= "\u109f"
        or "\u1780" <= char <= "\u17ff"
        or ("\u3040" <= char <= "\u9fff" or "\U00020000" <= char <= "\U0003ffff")
    )


def _is_name(text: str, word: str, start: int) -> bool:
    """Whether capitals make it a name: at the beginning of a sentence the first one says nothing."""
    if not word[1:].islower() and any(map(str.isupper, word[1:])):
        return True
    if not word[0].isupper() or word == "I" or word.startswith("I'"):
        return False
    before = text[max(0, start - 8) : start].rstrip(" \t\"'“\u2018«([*_-")
    return bool(before or start > 8) and before[-1:] not in _SENTENCE_ENDS  # noqa: PLR2004


@lru_cache(maxsize=4096)  # questions of one partition are made of the same few words
def _word(key: bytes, word: str, low: str, named: bool) -> bytes:
    """A word's digest, with two bits that say what it is."""
    plain = low in FUNCTION_WORDS
    if plain:
        named = named and len(word) > 1 and word.isupper()
        if named:
            low, plain = f"={low}", False  # US is not us, but How is how
    stem = low.removesuffix("'s")
    if len(stem) > 3 and stem.endswith("s") and not stem.endswith("ss"):  # noqa: PLR2004 - cards and card
        stem = stem[:-1]
    digest = blake2b(stem.encode("utf-8", "surrogatepass"), digest_size=_EACH, key=key).digest()
    content = not (plain or word.isdigit())
    return _TOKEN.pack((int.from_bytes(digest, "little") & ~_FLAGS) | (named * _NAMED) | (content * _CONTENT))


def _numbers(text: str, known: list[tuple[str, int]], *, figures: bool) -> list[str]:
    digits = _NUMBER.findall(text) if figures else []
    if figures and not text.isascii():
        digits = [
            "".join(str(unicodedata.digit(char)) if char.isdigit() else char for char in figure)
            for figure in digits
        ]
    return digits + [NUMBER_WORDS[word] for word, kind in known if kind & _NUMBER_WORD]


def _units(text: str, known: list[tuple[str, int]], *, figures: bool) -> list[str]:
    beside: list[str] = []
    currencies = ["$"] * text.count("$")
    if not text.isascii():
        currencies += [char for char in text if char > "\x7f" and unicodedata.category(char) == "Sc"]
    for found in _FIGURE.finditer(text) if figures else ():
        start, end = found.span()
        follows = _AFTER.match(text, end)
        after = "" if follows is None else follows[1].casefold()
        attached = follows is not None and follows.start(1) == end
        beside += [_letters_before(text, start), after if attached or after in UNITS else ""]
    return [word for word, kind in known if kind & _UNIT] + beside + currencies


def _letters_before(text: str, end: int) -> str:
    """The letters that a figure follows at once, a sign apart: "v" in "v2", "CO" in "CO-2"."""
    if end and text[end - 1] in "+-\u2212":
        end -= 1
    start = end
    while start and text[start - 1].isalpha():
        start -= 1
    return text[start:end].casefold()


def _quoted(text: str) -> list[str]:
    return [next(filter(None, found.groups()), "") for found in _QUOTED.finditer(text)]


def _urls(text: str) -> list[str]:
    return [found[0].rstrip(".,;:!?)").casefold() for found in _URL.finditer(text)]


def _code(text: str) -> list[str]:
    symbols = "".join(_SYMBOLS.findall(text))
    if not text.isascii():
        symbols += "".join(char for char in text if char > "\x7f" and unicodedata.category(char) in _SIGNS)
    fenced = [found[0].strip("`").strip() for found in _FENCE.finditer(text)] if "`" in text else []
    identifiers = _IDENTIFIER.findall(text) if _MAYBE_IDENTIFIER.search(text) else []
    return [*fenced, *identifiers, symbols] if fenced or identifiers or symbols else []


def _tokens(packed: bytes) -> list[int]:
    return [token for (token,) in _TOKEN.iter_unpack(packed)]


def _named(one: list[int], two: list[int]) -> list[int]:
    """The words of `one` that are names in either text, in order, each once."""
    names = {token >> 2 for token in (*one, *two) if token & _NAMED}
    return list(dict.fromkeys(word for token in one if (word := token >> 2) in names))


def _is_minimal_pair(one: list[int], two: list[int]) -> bool:
    first = list(dict.fromkeys(token >> 2 for token in one if token & _CONTENT))
    second = list(dict.fromkeys(token >> 2 for token in two if token & _CONTENT))
    only_first = sum(word not in set(second) for word in first)
    only_second = sum(word not in set(first) for word in second)
    if not only_first and not only_second:
        return first != second
    return max(only_first, only_second) <= _CLOSE
