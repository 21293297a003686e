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
_OFFICES = frozenset(
    "President Speaker Chair Mayor Secretary Vice Ambassador Justice Prime Chairman Chairwoman".split()
)


def _read(text: str, partners: Mapping[str, _Name], remember: Mapping[str, str]) -> _Reading:
    """The slots of a text, in one pass from left to right. Long because each kind of word is a case of it."""
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
        low, old = token.low, token.text
        nxt = tokens[i + 1] if i + 1 < len(tokens) else None
        glued_before = i > 0 and tokens[i - 1].end == token.start and tokens[i - 1].text == "-"
        glued_after = nxt is not None and nxt.start == token.end and nxt.text == "-"

        if low in _PRONOUNS or low in ("his", "her"):
            if glued_before or glued_after:
                continue
            options: tuple[str, ...]
            if low == "her":
                options = his_or_him(tokens, i)
            elif low == "his":
                options = her_or_hers(tokens, i)
            else:
                options = (_PRONOUNS[low],)
            gender = "male" if low in _MALE_PRONOUNS else "female"
            slots.append(_Slot(token.start, token.end, old, gender, tuple(_like(old, o) for o in options)))
            continue

        title = _title(tokens, i, remember, undotted)
        if title:
            slots.append(title[0])
            skip_to = title[1]
            continue

        if low in remember and low not in _TO_FEMALE and low not in _TO_MALE:
            gender = "male" if remember[low] in words.ONE_WAY_TO_MALE else "female"
            slots.append(_Slot(token.start, token.end, old, gender, (_like(old, remember[low]),)))
            continue

        person = persons.known(i)
        if person is not None:
            key = old if old in partners else old.capitalize()
            if person == "unsure":
                flags.append(f"unsure name: {old}")
            elif partners[key].partner is None:
                flags.append(f"name without a twin: {old}")
            else:
                new = str(partners[key].partner)
                new = new if old in partners else new.upper()
                slots.append(_Slot(token.start, token.end, old, partners[key].gender, (new,)))
            continue

        if low in _TO_FEMALE or low in _TO_MALE:
            if game and low in ("king", "kings", "queen", "queens"):
                continue
            if nxt is not None and nxt.text in words.PLACE_NOUNS and old[0].isupper():
                continue  # King Street
            proper = _proper(tokens, i, shouting)
            if proper is not None:
                flags.append(f"proper name: {proper}")
            gender = "male" if low in _TO_FEMALE else "female"
            new = remember.get(low) or (_TO_FEMALE if gender == "male" else _TO_MALE)[low]
            memory = (new, low) if low in _ONE_WAY else None
            slots.append(_Slot(token.start, token.end, old, gender, (_like(old, new),), memory))
            continue

        if persons.unknown(i):
            unknown.append(old)

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
