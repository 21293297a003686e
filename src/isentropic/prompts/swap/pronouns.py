"""Two pronouns need grammar to swap: *her* is *his* or *him*, *his* is *her* or *hers*.

The rules look at a few words on either side. Each function answers with the possible words, likelier first;
more than one means that the rules cannot decide ("we saw her run").
"""

from __future__ import annotations

from typing import NamedTuple

from isentropic.prompts.swap import words

_QUOTES = frozenset("\"“‘'*_")


class Token(NamedTuple):
    """A word, a number or a mark, and where it is in the text."""

    text: str
    low: str
    start: int
    end: int
    word: bool
    opens: bool  # first of a sentence
    kept: bool  # inside a title of a work, a set phrase or an address


_HIS, _HIM = ("his",), ("him",)
_BACK_TO = frozenset(
    "to from into for home in down up toward towards onto out inside here there with".split()
)
_DEFINITE = frozenset("the of this that these those his her my your their our its".split())
_OBJECT_STARTS = frozenset("$ a an the some his her my their each two three".split())
_SELVES = frozenset("himself herself itself myself yourself ourselves yourselves themselves".split())
_OWNERS = ("my", "your", "their", "our")
_HIM_OR_HIS, _HIS_OR_HIM = ("him", "his"), ("his", "him")


class _Around(NamedTuple):
    """The words around a pronoun, lower case; "" where there is none."""

    prev: str
    next: str
    after: str  # the word after next
    glued: bool  # next touches the pronoun
    hyphen: bool  # next is the first part of a hyphenated word
    next_text: str
    subject_it: bool  # "it takes her", "it will take her"
    rest: tuple[str, ...]  # from next on


def _around(tokens: list[Token], i: int) -> _Around:
    rest = tokens[i + 1 : i + 8]
    prev = tokens[i - 1].low if i else ""
    glued = bool(rest) and rest[0].start == tokens[i].end
    hyphen = (
        len(rest) > 2
        and rest[1].text == "-"
        and rest[0].end == rest[1].start
        and rest[1].end == rest[2].start
        and rest[2].text[0].isalnum()
    )
    lows = tuple(t.low for t in rest)
    return _Around(
        prev, lows[0] if rest else "", lows[1] if len(rest) > 1 else "", glued, hyphen,
        rest[0].text if rest else "", "it" in [t.low for t in tokens[max(0, i - 4) : i]], lows,
    )  # fmt: skip


def _closes(low: str | tuple[str, ...]) -> bool:
    """No noun can start here: the end, a mark, or a word that opens a new phrase."""
    low = low if isinstance(low, str) else low[0] if low else ""
    return not low or not low[0].isalnum() or low in words.PREPOSITIONS or low in words.CLAUSE_WORDS


def _things(low: str) -> bool:
    """A plural or a mass noun: needs no article."""
    plural = low.endswith("s") and not low.endswith(("ss", "us", "is")) and len(low) > 3
    return low in words.MASS or (plural and low not in words.PEOPLE)


def _object_follows(rest: tuple[str, ...]) -> bool:
    """After a noun: the thing given, so that the noun before is who gets it."""
    low = rest[0] if rest else ""
    return low[:1].isdigit() or low in _OBJECT_STARTS


def _number(low: str) -> bool:
    return low[:1].isdigit() and not low.endswith(("st", "nd", "rd", "th")) or low in words.NUMBER_WORDS


def his_or_him(tokens: list[Token], i: int) -> tuple[str, ...]:
    """What "her" is for a man: "his" before a noun, "him" where it means the person.

    Long because it is one list of rules, where the first that fits decides: their order is the grammar.
    """
    a = _around(tokens, i)
    gives, may_give = a.prev in words.DATIVES, a.prev in words.WEAK_DATIVES
    if not a.next or (a.glued and a.next != "/"):
        return _HIM
    if not (a.next[0].isalnum()):
        if a.next == "$":
            return _HIM if gives or may_give else _HIS
        if a.next in _QUOTES and sum(t.text == a.next for t in tokens[:i]) % 2:  # a closing quote, set apart
            return _HIM
        if a.next in _QUOTES or a.next in "([#":
            return _HIM if a.prev in words.NAMING else _HIM_OR_HIS if gives else _HIS
        return _HIM
    if tokens[i].opens and (a.next not in ("and", "or") or a.after in _OWNERS):  # "Her will was read."
        return _HIS
    if a.next[0].isdigit() and a.hyphen:  # a 3-year-old, a 20-dollar bill
        return _HIS
    if _number(a.next):
        return _her_number(a)
    if a.next[0].isdigit() or a.hyphen:
        return _HIS
    if a.next in words.ADVERBS | words.MAY_MODIFY | {
        "so",
        "very",
        "just",
        "only",
        "right",
        "back",
        "quite",
        "really",
    }:
        return _her_adverb(a)
    if a.next in words.CLAUSE_WORDS:
        return _her_clause(a)
    if a.next in words.PREPOSITIONS:
        noun = a.after in words.PREPOSITION_NOUNS.get(a.next, ()) or (a.next == "past" and _closes(a.after))
        return _HIS if noun else _HIM
    if a.next.endswith("ly") and a.next not in words.LY_NOT_ADVERBS and len(a.next) > 4:
        return _HIM if _closes(a.after) or (_number(a.after) and gives) or a.after in words.ADVERBS else _HIS
    if (a.next in ("all", "both") and a.after in _DEFINITE) or a.after in _SELVES or a.next in _SELVES:
        return _HIM
    if gives and a.next in words.GREETINGS:
        return _HIM
    if (a.next in words.RESULTS and _closes(a.after)) or a.next in words.PAST_VERBS:
        return _HIM
    if a.prev in words.NAMING and (a.next_text[0].isupper() or a.next == "names") and _closes(a.after):
        return _HIM
    if a.prev in words.APPOINTING and a.next not in words.PEOPLE and (_closes(a.after) or a.after == "of"):
        return _HIM_OR_HIS  # "elected her president", "appointed her secretary"
    if a.prev in words.MAKING and (a.next in words.ADJECTIVES or a.next.endswith("ier")) and _closes(a.after):
        return _HIM
    if (
        a.prev in words.COMPLEMENT_VERBS
        and a.next in ("rather", "more", "less", "pretty")
        and _closes(a.rest[2:3])
    ):
        return _HIM
    if a.prev in words.PREPOSITIONS:
        if (
            a.next.endswith("ed")
            and a.next not in ("bed", "shed", "seed", "need", "speed")
            and _closes(a.after)
        ):
            return _HIM  # "the boy behind her laughed"
        if (
            a.next.endswith("ing")
            and a.next not in words.ING_NOUNS
            and a.next_text.islower()
            and _closes(a.after)
        ):
            return _HIS_OR_HIM  # "because of her leaving": both are English
        loose = a.prev in words.BESIDE and a.next not in words.PEOPLE
        if loose and a.after in ("a", "an", "the") and a.next.endswith("s") and not a.next.endswith("ss"):
            return _HIM_OR_HIS  # "the man beside her grabs the rope"
    if a.next.endswith("ing") and a.prev in ("want", "wants", "wanted"):
        return _HIM
    if a.prev in words.CLAUSE_VERBS and a.next.endswith("ed") and _closes(a.after):
        return _HIM
    if a.prev in words.CLAUSE_VERBS:
        told = _her_does(a)
        if told:
            return told
    if a.prev in words.LETTING and a.next not in words.LET_NOUNS:
        return _HIM_OR_HIS
    if a.next.endswith("ing") and a.prev in words.CATCHING:
        if a.prev in words.KEEPING:
            return _HIM
        return _HIM_OR_HIS if not a.after or not a.after[0].isalnum() else _HIM if _closes(a.after) else _HIS
    if a.next == "home":
        return _HIM if a.prev in words.MOVING and (_closes(a.after) or a.after in words.ADVERBS) else _HIS
    if (
        a.next in words.COMPLEMENTS
        and a.prev in words.COMPLEMENT_VERBS
        and _closes(a.after)
        and not _things(a.next)
        and a.next not in "best company last next second first all extra".split()
    ):
        return _HIM
    if a.next == "well":
        return _HIM if a.prev in words.KNOWING else _HIM_OR_HIS if _closes(a.after) else _HIS
    if a.prev in ("wish", "wishes", "wished", "wishing") and a.next in (
        "happy",
        "good",
        "luck",
        "merry",
        "success",
    ):
        return _HIM
    if gives:
        return _her_thing(a)
    if a.prev in words.BUYING and (
        a.next in words.MASS or (a.prev.startswith(("buy", "bought")) and _things(a.next))
    ):
        return _HIS_OR_HIM
    return _HIS


def _her_number(a: _Around) -> tuple[str, ...]:
    if a.next == "one" and a.after == "of":
        return _HIM
    head = next((w for w in a.rest[1:] if not _number(w) and w not in words.ADJECTIVES and w != "-"), "")
    if a.next in ("more", "less", "twice") and _closes(a.after):
        return _HIM
    if a.next in ("twice", "half") and (a.prev in words.DATIVES or a.next == "twice"):
        return _HIM
    if head in ("times", "time") and a.next not in ("more", "less"):
        return _HIM
    if a.prev in words.TAKING and (head in words.TIME_UNITS or not head or a.subject_it):
        return _HIM
    if head in words.PEOPLE and a.prev in words.DATIVES | words.WEAK_DATIVES:
        return _HIS
    if a.prev in words.DATIVES:
        return _HIM_OR_HIS if head in words.ANIMALS else _HIM
    if "more" in a.rest[1:3] and a.prev in words.WEAK_DATIVES:
        return _HIM
    if a.prev in words.MAKING and a.next in ("more", "less"):
        return _HIM
    return _HIS_OR_HIM if a.prev in words.WEAK_DATIVES else _HIS


def _her_clause(a: _Around) -> tuple[str, ...]:
    if a.next_text in ("May", "US", "IT", "AM", "A", "Will"):
        return _HIS
    if a.next == "can" and a.after in ("of", ".", ",", "opener"):
        return _HIS
    if a.next in ("will", "might") and a.prev in words.PREPOSITIONS | {"changed", "wrote", "read", "signed"}:
        return _HIS
    if a.next == "much" and not _closes(a.after) and a.prev not in words.DATIVES:
        return _HIS
    return _HIM


def _her_adverb(a: _Around) -> tuple[str, ...]:
    if a.next == "back":
        if a.after in words.BACK_NOUNS or a.prev in words.BODY_BACK | words.PREPOSITIONS:
            return _HIS
        if a.prev in words.COMPLEMENT_VERBS | words.DATIVES | words.CALLING_BACK:
            return _HIM
        return _HIM if a.after in _BACK_TO else _HIS_OR_HIM
    if a.next == "right":
        now = a.after in ("now", "away", "after", "before", "there", "back", "here", "off", "to", "then")
        return _HIM if now or (_closes(a.after) and a.prev in words.COMPLEMENT_VERBS) else _HIS
    if a.next == "so":
        return _HIS if a.after == "called" else _HIM
    if a.next in ("very", "really", "quite"):
        return _HIM if a.after in ("much", "well", "often") else _HIS
    if a.next == "only":
        return _HIM if _closes(a.after) or (a.prev in words.DATIVES and _number(a.after)) else _HIS
    if a.next == "just":
        return _HIM
    if a.next in ("earlier", "further", "faster") and a.prev in words.PREPOSITIONS:
        return _HIS
    if a.next in words.MAY_MODIFY:
        return _HIM if _closes(a.after) else _HIS
    return _HIM


def _her_does(a: _Around) -> tuple[str, ...] | None:
    """ "saw her leave", "made her walk home": after some verbs a verb may follow."""
    bare, either = a.next in words.BARE_VERBS, a.next in words.VERB_OR_NOUN
    if not bare and not either:
        return None
    if a.prev in words.LETTING or (bare and not either):
        return _HIM
    if a.prev in words.MAKING and a.next in (
        "smile",
        "laugh",
        "cry",
        "dance",
        "fall",
        "sleep",
        "wait",
        "stop",
        "try",
        "look",
    ):
        return _HIM
    if a.prev in words.MAKING and a.after in words.PREPOSITIONS:
        return _HIM
    if a.after in words.CLAUSE_WORDS | words.ADVERBS | {
        "home",
        "harder",
        "faster",
        "across",
        "down",
        "up",
        "around",
    }:
        return _HIM
    return _HIM_OR_HIS


def _her_thing(a: _Around) -> tuple[str, ...]:
    """After "gave her": a bare plural or mass noun is either what she got, or hers."""
    if a.next in words.PEOPLE | words.ANIMALS:
        return _HIS
    described = a.next in words.ADJECTIVES and a.after
    if _things(a.after if described else a.next):
        rest = a.rest[2:] if described else a.rest[1:]
        if _object_follows(rest) or (rest and rest[0] in "'’"):
            return _HIS
        return _HIM_OR_HIS
    return _HIS


def her_or_hers(tokens: list[Token], i: int) -> tuple[str, ...]:
    """What "his" is for a woman: "her" before a noun, "hers" where it stands alone."""
    a = _around(tokens, i)
    if not a.next or a.glued:
        return ("hers",)
    if not a.next[0].isalnum():
        return ("her",) if a.next in _QUOTES or a.next in "([#$" else ("hers",)
    if a.hyphen or a.next[0].isdigit():
        return ("her",)
    if a.prev == "of" and i > 1 and tokens[i - 2].low in words.ACQUAINTANCES:  # "a friend of his came"
        past = a.next in words.PAST_VERBS or (a.next.endswith("ed") and _closes(a.after))
        if past or (a.next in words.HUMAN_VERBS and _closes(a.after)):
            return ("hers",)
    if a.next in ("and", "or"):
        owner = a.after in _OWNERS or any(w in "'’" for w in a.rest[1:5])
        return ("her",) if owner and a.prev != "of" else ("hers",)
    if a.next_text in ("May", "US", "IT", "AM", "A", "Will"):
        return ("her",)
    if a.next in ("will", "can", "might", "must"):
        return ("hers",) if a.after in ("be", "not", "have", "do", "never", "also", "only") else ("her",)
    if a.next in ("every", "another", "no", "much", "some", "any", "enough", "have", "do", "am", "us"):
        return ("her",)
    if a.next in words.CLAUSE_WORDS:
        return ("hers",)
    if a.next in words.PREPOSITIONS:
        noun = a.after in words.PREPOSITION_NOUNS.get(a.next, ()) or (a.next == "past" and _closes(a.after))
        return ("her",) if noun else ("hers",)
    if a.next in ("earlier", "further", "faster"):
        return ("her",)
    if a.next in words.ADVERBS and not (a.next in words.MAY_MODIFY and not _closes(a.after)):
        return ("hers",)
    return ("her",)
