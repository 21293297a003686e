"""Reading a text: tokens, and which of them carry gender."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from isentropic.prompts.swap import words
from isentropic.prompts.swap.names import _DOTTED, _Name, _NameReader
from isentropic.prompts.swap.pronouns import Token, her_or_hers, his_or_him


class Change(NamedTuple):
    """One replaced word: where it starts in the original text, what was there, what is there now."""

    start: int
    old: str
    new: str


class _Slot(NamedTuple):
    start: int
    end: int
    old: str
    gender: str
    options: tuple[str, ...]  # likelier first; more than one means undecided
    memory: tuple[str, str] | None = None


class _Reading(NamedTuple):
    slots: list[_Slot]
    flags: list[str]


# --- Tokens -------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"(?i:ma['’]am\b)|[^\W\d_]+|\d[\d,.:/]*\w*|[^\w\s]|_")
_PHRASES = re.compile("|".join(words.PHRASES), re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+|www\.\S+|\S+@\S+|[@#]\w+")
_QUOTED = re.compile(
    r"“([^”]{1,80})”|\"([^\"]{1,80})\"|(?<![\w*])\*([^*\n]{1,80})\*(?![\w*])|(?<!\w)_([^_\n]{1,80})_(?!\w)"
)
_BODY = re.compile(
    r"\b(?:"
    + "|".join(
        [re.escape(w[:-1]) + r"\w*" if w.endswith("*") else re.escape(w) for w in words.BIOLOGY]
        + list(words.BIOLOGY_PHRASES)
    )
    + r")(?!\w)",
    re.IGNORECASE,
)
_SMALL = frozenset("a an the of and or in on at to for with from by as but nor is".split())
_ENDS = frozenset('.!?:;"“”([*•')


def _kept_spans(text: str) -> list[tuple[int, int]]:
    spans = [m.span() for pattern in (_PHRASES, _ADDRESS) for m in pattern.finditer(text)]
    for m in _QUOTED.finditer(text):
        inner = next(g for g in m.groups() if g is not None)
        before = text[: m.start()].rstrip()
        speech = before.endswith((",", ":")) and text[m.start()] in '"“'
        main = [w for w in re.findall(r"[^\W\d_]+", inner.replace("'s", "")) if w not in _SMALL]
        ends = inner.rstrip().endswith((".", "!", "?")) and text[m.start()] in '"“' and len(main) > 4
        if main and not speech and not ends and all(w[0].isupper() for w in main):
            spans.append(m.span())
    return spans


def _tokens(text: str) -> list[Token]:
    spans = _kept_spans(text)
    tokens: list[Token] = []
    for m in _TOKEN.finditer(text):
        start, end, s = m.start(), m.end(), m.group()
        opens = True
        if tokens:
            last = tokens[-1]
            dotted_title = last.text == "." and len(tokens) > 1 and tokens[-2].text in _DOTTED
            opens = (last.text in _ENDS and not dotted_title) or "\n" in text[last.end : start]
        kept = any(a <= start and end <= b for a, b in spans)
        tokens.append(Token(s, s.lower().replace("’", "'"), start, end, s[0].isalpha(), opens, kept))
    return tokens


def _like(old: str, new: str) -> str:
    """Give a word the capitals of the one it replaces."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new


# --- Reading ------------------------------------------------------------------------------------------------

_PRONOUNS = {
    "he": "she",
    "him": "her",
    "himself": "herself",
    "she": "he",
    "herself": "himself",
    "hers": "his",
}
_MALE_PRONOUNS = frozenset({"he", "him", "his", "himself"})
_TO_FEMALE = words.NOUNS | words.ONE_WAY_TO_FEMALE
_TO_MALE = {female: male for male, female in words.NOUNS.items()} | words.ONE_WAY_TO_MALE
_ONE_WAY = frozenset(words.ONE_WAY_TO_MALE) | frozenset(words.ONE_WAY_TO_FEMALE)
_TITLES = {m: (f, "male") for m, f in words.TITLES.items()}
_TITLES |= {f: (m, "female") for m, f in words.TITLES.items()}
_TITLES |= {f: (m, "female") for f, m in words.ONE_WAY_TITLES.items()}
_CHESS = frozenset({"king", "kings", "queen", "queens"})
_OFFICES = frozenset(
    "President Speaker Chair Mayor Secretary Vice Ambassador Justice Prime Chairman Chairwoman".split()
)


def _read(text: str, partners: Mapping[str, _Name], remember: Mapping[str, str]) -> _Reading:
    """The slots of a text, in one pass from left to right; of the kinds of words, the first that fits."""
    tokens = _tokens(text)
    slots: list[_Slot] = []
    flags: list[str] = []
    game = any(t.low in words.GAMES for t in tokens)
    shouting = text.isupper()
    undotted = bool(re.search(r"\b(?:Mr|Mrs|Ms) ", text))
    persons = _NameReader(tokens, partners, shouting)
    unknown: list[str] = []
    skip_to = -1

    for i, token in enumerate(tokens):
        if not token.word or token.kept or i <= skip_to:
            continue
        low = token.low
        slot: _Slot | None = None
        if low in _PRONOUNS or low in ("his", "her"):
            slot = _pronoun(tokens, i)
        elif title := _title(tokens, i, remember, undotted):
            slot, skip_to = title
        elif low in remember and low not in _TO_FEMALE and low not in _TO_MALE:
            gender = "male" if remember[low] in words.ONE_WAY_TO_MALE else "female"
            slot = _slot(token, gender, remember[low])
        elif person := persons.known(i):
            slot = _person(token, person, partners, flags)
        elif low in _TO_FEMALE or low in _TO_MALE:
            slot = None if game and low in _CHESS else _noun(tokens, i, remember, shouting, flags)
        elif persons.unknown(i):
            unknown.append(token.text)
        if slot:
            slots.append(slot)

    if unknown:
        flags.append(f"unknown name: {unknown[0]}")
    flags += [f"no twin: {t.low}" for t in tokens if t.low in words.NO_TWIN]
    body = _BODY.search(text)
    if body:
        flags.insert(0, f"biology: {body.group().lower()}")
    clash = _clash(tokens, slots, partners)
    if clash:
        flags.append(f"name clash: {clash}")
    return _Reading(slots, flags)


def _slot(token: Token, gender: str, *options: str, memory: tuple[str, str] | None = None) -> _Slot:
    """A word that has twins, with the capitals that the word has."""
    new = tuple(_like(token.text, option) for option in options)
    return _Slot(token.start, token.end, token.text, gender, new, memory)


def _pronoun(tokens: list[Token], i: int) -> _Slot | None:
    """A pronoun, unless a hyphen makes it a part of another word."""
    token, low = tokens[i], tokens[i].low
    if i and tokens[i - 1].text == "-" and tokens[i - 1].end == token.start:
        return None
    if i + 1 < len(tokens) and tokens[i + 1].text == "-" and tokens[i + 1].start == token.end:
        return None
    options: tuple[str, ...]
    if low == "her":
        options = his_or_him(tokens, i)
    elif low == "his":
        options = her_or_hers(tokens, i)
    else:
        options = (_PRONOUNS[low],)
    return _slot(token, "male" if low in _MALE_PRONOUNS else "female", *options)


def _person(token: Token, person: str, partners: Mapping[str, _Name], flags: list[str]) -> _Slot | None:
    """A name that is known; where it has no sure twin, a flag says so."""
    old = token.text
    named = partners[old if old in partners else old.capitalize()]
    if person == "unsure":
        flags.append(f"unsure name: {old}")
        return None
    if named.partner is None:
        flags.append(f"name without a twin: {old}")
        return None
    new = named.partner if old in partners else named.partner.upper()
    return _Slot(token.start, token.end, old, named.gender, (new,))


def _noun(
    tokens: list[Token], i: int, remember: Mapping[str, str], shouting: bool, flags: list[str]
) -> _Slot | None:
    """A noun that has a gender, but no part of a place; where it may be part of a name, a flag says so."""
    token, low = tokens[i], tokens[i].low
    if i + 1 < len(tokens) and tokens[i + 1].text in words.PLACE_NOUNS and token.text[0].isupper():
        return None  # King Street
    proper = _proper(tokens, i, shouting)
    if proper is not None:
        flags.append(f"proper name: {proper}")
    gender = "male" if low in _TO_FEMALE else "female"
    new = remember.get(low) or (_TO_FEMALE if gender == "male" else _TO_MALE)[low]
    return _slot(token, gender, new, memory=(new, low) if low in _ONE_WAY else None)


def _title(
    tokens: list[Token], i: int, remember: Mapping[str, str], undotted: bool
) -> tuple[_Slot, int] | None:
    """Read "Mr.", "Mrs. Smith", "Madam President" at token i;
    returns the slot and the last token it covers."""
    token = tokens[i]
    name = token.text.capitalize() if token.text.isupper() and len(token.text) > 1 else token.text
    madam = name == "Madam"
    if name not in _TITLES and not madam:
        return None
    last = i
    if i + 1 < len(tokens) and tokens[i + 1].text == "." and tokens[i + 1].start == token.end:
        last = i + 1
    after = tokens[last + 1] if last + 1 < len(tokens) else None
    if after is None or not after.word or not after.text[0].isupper():
        return None
    end = tokens[last].end
    dot = "" if undotted and last == i else "."
    if after.text in _OFFICES and (madam or name == "Mr"):
        new = "Mr" + dot if madam else "Madam"
        gender = "female" if madam else "male"
        return _Slot(
            token.start, end, token.text + ("." if last > i else ""), gender, (_like(token.text, new),)
        ), last
    if madam:
        return None
    new, gender = _TITLES[name]
    if new in ("Mr", "Ms"):
        new += dot if name == "Miss" else "." if last > i else ""
    key = f"{new} {after.text}"
    old = token.text + ("." if last > i else "")
    memory = (key, old) if name in words.ONE_WAY_TITLES else None
    backwards = remember.get(f"{old} {after.text}")
    if backwards:
        new = backwards
    return _Slot(token.start, end, old, gender, (_like(token.text, new),), memory), last


def _proper(tokens: list[Token], i: int, shouting: bool) -> str | None:
    """A gendered noun with a capital next to another capital is part of some name: "Little Women"."""
    token = tokens[i]
    if not token.text[0].isupper() or shouting or (token.text.isupper() and len(token.text) > 1):
        return None
    before = tokens[i - 1] if i else None
    after = tokens[i + 1] if i + 1 < len(tokens) else None
    capital_after = after is not None and after.word and after.text[0].isupper() and after.text != "I"
    capital_before = before is not None and before.word and before.text[0].isupper() and not token.opens
    if (
        capital_before
        and before is not None
        and before.opens
        and before.low in words.CLAUSE_WORDS | words.PREPOSITIONS
    ):
        capital_before = False
    if (
        capital_before
        and before is not None
        and before.low in ("her", "his", "dear", "hi", "hello", "step", "great")
    ):
        capital_before = False
    if after is not None and after.text in ("Scout", "Scouts"):
        return None
    if (
        before is not None
        and before.text == "-"
        and i > 1
        and tokens[i - 2].text[0].isupper()
        and not tokens[i - 2].opens
    ):
        return f"{tokens[i - 2].text}-{token.text}"
    if capital_before and before is not None:
        return f"{before.text} {token.text}"
    if capital_after and after is not None:
        if token.low in words.TITLE_NOUNS and after.text not in words.PLACE_NOUNS:
            return None
        return f"{token.text} {after.text}"
    return None


def _clash(tokens: list[Token], slots: list[_Slot], partners: Mapping[str, _Name]) -> str | None:
    """A name that would then mean two people."""
    starts = {slot.start for slot in slots}
    still = {t.text for t in tokens if t.word and t.start not in starts}
    for slot in slots:
        if slot.old in partners and slot.options[0] in still:
            return slot.options[0]
    return None


# --- Writing ------------------------------------------------------------------------------------------------


def _write(text: str, slots: Sequence[_Slot], picks: Sequence[str]) -> str:
    parts, at = [], 0
    for slot, new in zip(slots, picks, strict=True):
        parts += [text[at : slot.start], new]
        at = slot.end
    return "".join(parts) + text[at:]


def _back(twin: str, slots: Sequence[_Slot], partners: Mapping[str, _Name], memory: Mapping[str, str]) -> str:
    """The twin's own twin; where grammar is undecided there, the original word is accepted if it fits."""
    back = _read(twin, partners, memory).slots
    olds = [slot.old for slot in slots] if len(slots) == len(back) else [""] * len(back)
    picks = [old if old in slot.options else slot.options[0] for slot, old in zip(back, olds, strict=True)]
    return _write(twin, back, picks)
