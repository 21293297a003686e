"""Names: who is meant by which."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from isentropic.prompts.swap import words
from isentropic.prompts.swap.pronouns import Token

TokenCount = Callable[[str], int]


_TRICKY = words.COMMON_WORD_NAMES | words.PLACE_NAMES  # paired among themselves: a twin should read as a name


class _Name(NamedTuple):
    gender: str
    partner: str | None
    given: bool  # named by the caller: always a name


@lru_cache(maxsize=64)
def _partners(token_count: TokenCount | None, given: tuple[tuple[str, str], ...]) -> dict[str, _Name]:
    """Each known name's gender and partner. Always one to one, so that a swap can come back."""
    known: dict[str, _Name] = dict(_listed(token_count))
    freed: dict[str, list[str]] = {"male": [], "female": []}
    taken = {name for pair in given for name in pair}
    for male, female in given:
        for name in (male, female):
            entry = known.get(name)
            if entry and entry.partner and entry.partner not in taken:
                freed[known[entry.partner].gender].append(entry.partner)
        known[male] = _Name("male", female, True)
        known[female] = _Name("female", male, True)
    men, women = freed["male"], freed["female"]
    for k in range(max(len(men), len(women))):
        male_left, female_left = men[k] if k < len(men) else None, women[k] if k < len(women) else None
        if male_left:
            known[male_left] = _Name("male", female_left, False)
        if female_left:
            known[female_left] = _Name("female", male_left, False)
    return known


@lru_cache(maxsize=4)
def _listed(token_count: TokenCount | None) -> dict[str, _Name]:
    groups: dict[Any, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((words.MALE_NAMES, words.FEMALE_NAMES)):
        for name in names:
            if name not in words.UNISEX_NAMES:
                size = (token_count(name), token_count(" " + name)) if token_count else None
                groups[(name in _TRICKY, size)][side].append(name)
    left: tuple[list[str], list[str]] = ([], [])
    pairs: list[tuple[str, str]] = []
    for men, women in groups.values():
        n = min(len(men), len(women))
        pairs += zip(men[:n], women[:n], strict=True)
        left[0].extend(men[n:])
        left[1].extend(women[n:])
    n = min(len(left[0]), len(left[1]))
    pairs += zip(left[0][:n], left[1][:n], strict=True)
    known = {male: _Name("male", female, False) for male, female in pairs}
    known |= {female: _Name("female", male, False) for male, female in pairs}
    known |= {name: _Name("male", None, False) for name in left[0][n:]}
    known |= {name: _Name("female", None, False) for name in left[1][n:]}
    return known


_DOTTED = frozenset("Mr Mrs Ms Dr Prof St Jr Sr Mme Rev Capt Lt Sgt Gen Sen Gov".split())
_MONTH_NAMES = frozenset("April May June August".split())
_STRONG = words.HUMAN_VERBS - frozenset("and has had is was will can needs needed".split())
_FUNCTION_WORDS = (
    words.CLAUSE_WORDS
    | words.PREPOSITIONS
    | words.ADVERBS
    | words.MAY_MODIFY
    | words.NUMBER_WORDS
    | frozenset(w.lower() for w in words.OPENERS)
)
_HONOURED = frozenset("Sir Lady Lord Dame".split())
_IN_PLACE = frozenset(
    "in at near outside visit visits visited visiting around through throughout across".split()
)


class _NameReader:
    """Tells given names from surnames, places and common words by their neighbours."""

    def __init__(self, tokens: list[Token], partners: Mapping[str, _Name], shouting: bool) -> None:
        self.tokens, self.partners, self.shouting = tokens, partners, shouting
        self.inside = Counter(t.text for t in tokens if t.word and not t.opens)
        self.named = {
            t.text for i, t in enumerate(tokens) if self._capital(t) and self._acts(i, words.HUMAN_VERBS)
        }
        self.people = {t.text for i, t in enumerate(tokens) if self._capital(t) and self._acts(i, _STRONG)}
        self.surnames = {t.text for i, t in enumerate(tokens) if self._after_name(i)}

    def _at(self, i: int) -> Token | None:
        return self.tokens[i] if 0 <= i < len(self.tokens) else None

    def _capital(self, token: Token | None) -> bool:
        return token is not None and token.word and token.text[0].isupper()

    def _adjacent(self, i: int) -> bool:
        return i > 0 and self.tokens[i].start - self.tokens[i - 1].end == 1

    def _is_listed(self, name: str) -> bool:
        return name in self.partners or name in words.UNISEX_NAMES

    def _after_name(self, i: int) -> bool:
        """Stands right after a given name or a title, so it is a surname."""
        token, before = self.tokens[i], self._at(i - 1)
        if not self._capital(token) or before is None or not token.word:
            return False
        if before.text == "." and i > 1 and self.tokens[i - 2].text in _DOTTED - {"St", "Jr", "Sr"}:
            return True
        if not self._adjacent(i) or not self._capital(before) or token.opens:
            return False
        if before.text in ("Mr", "Mrs", "Ms", "Miss", "Dr", "Professor", "Doctor"):
            return True
        return (
            self._is_listed(before.text)
            and before.text not in words.PLACE_NAMES
            and not (before.opens and before.text in words.COMMON_WORD_NAMES)
        )

    def known(self, i: int) -> str | None:
        """None: no name. "name": a given name. "unsure": may be one."""
        token = self.tokens[i]
        name = token.text
        if name not in self.partners:
            if not (name.isupper() and len(name) > 2 and name.capitalize() in self.partners):
                return None
            name = name.capitalize()
            if name in words.COMMON_WORD_NAMES:
                return None
        entry = self.partners[name]
        if entry.given:
            return "name"
        before, after = self._at(i - 1), self._at(i + 1)
        if self._after_name(i) or token.text in self.surnames:
            return None
        for hyphen, other in ((before, self._at(i - 2)), (after, self._at(i + 2))):
            if hyphen is not None and hyphen.text == "-" and self._capital(other):
                return "unsure"  # Anna-Maria
        if before is not None and before.text in (
            "St",
            "Saint",
            "San",
            "Santa",
            "Los",
            "Las",
            "Fort",
            "Port",
            "Mount",
            "Lake",
        ):
            return None
        if before is not None and before.text == "." and i > 1 and self.tokens[i - 2].text == "St":
            return None
        if after is not None and after.text in words.PLACE_NOUNS:
            return (
                None
                if before is not None and before.low in _IN_PLACE | {"to", "from", "on", "the"}
                else "unsure"
            )
        if name in words.PLACE_NAMES:
            if before is not None and before.low in _IN_PLACE | {"of"}:
                return None
            comma = after is not None and after.text == ","
            state = self._at(i + 2)
            if comma and state is not None and state.text in words.NEUTRAL_CAPITALS:
                return None
            if before is not None and before.low in ("to", "from") and name not in self.people:
                return "unsure"
        if name in words.COMMON_WORD_NAMES:
            if before is not None and before.low in ("in", "the", "this", "last", "next", "a", "an"):
                return None
            if token.opens and not self.inside[name] and name not in self.named:
                return None
        return "name"

    def _acts(self, i: int, verbs: frozenset[str]) -> bool:
        """Followed by 's, by a verb people are subjects of, or by "and" and another capital."""
        after, second = self._at(i + 1), self._at(i + 2)
        if after is None:
            return False
        if after.text in "'’":
            return second is not None and second.low == "s"
        if after.low == "and":
            return self._capital(second)
        return after.low in verbs

    def unknown(self, i: int) -> bool:
        """Looks like the name of a person the lists do not hold."""
        token, before, after = self.tokens[i], self._at(i - 1), self._at(i + 1)
        name = token.text
        if name in _MONTH_NAMES:
            return self._acts(i, _STRONG) and (after is None or after.low != "and")
        if (
            not self._capital(token)
            or self.shouting
            or not re.fullmatch(r"(?:Ma?c[A-Z])?\w[^\W\dA-Z]+", name)
        ):
            return False
        if token.low in _FUNCTION_WORDS:
            return False
        if self._is_listed(name) or name in words.NEUTRAL_CAPITALS or name in words.PLACE_NOUNS:
            return False
        if name in words.PLACE_NAMES or name in self.surnames or name.endswith(("ish", "ese")):
            return False
        if token.opens:
            if name in words.OPENERS or name.endswith("ing"):
                return False
            strong = self._acts(i, _STRONG)
            plural = name.endswith("s") and after is not None and not after.low.endswith("s")
            return (strong and not plural) or self.inside[name] > 0
        if before is None:
            return False
        if before.text in _HONOURED or (before.low in words.TITLE_NOUNS and self._adjacent(i)):
            return True
        if before.text in "'’-" or (
            before.word and before.text[0].isupper() and self._adjacent(i) and not before.opens
        ):
            return False
        if before.low in words.PLACE_WORDS_BEFORE:
            return False
        return not (after is not None and (after.text in words.PLACE_NOUNS or after.text == "-"))
