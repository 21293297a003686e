"""Find the gender a text speaks of, and write its twin.

Words are looked up in `swap_words.py`. Two pronouns need grammar: *her* is *his* or *him*, *his* is *her* or *hers*.
Local rules decide these; where the rules are unsure, a language model may choose (`lm_chooser`), or the text is
flagged. A flagged text should be left out: its twin is a best guess.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from isentropic import swap_words as words
from isentropic.errors import InputError
from isentropic.swap_pronouns import Token, her_or_hers, his_or_him

Chooser = Callable[[list[str]], int]
TokenCount = Callable[[str], int]

MOST_CHOICES = 8  # undecided pronouns in one text; each costs one question to the language model


class Detection(NamedTuple):
    """The gender a text speaks of ("male", "female", "both", "none") and the words that say so."""

    group: str
    evidence: tuple[str, ...]


class Change(NamedTuple):
    """One replaced word: where it starts in the original text, what stood there, what stands there now."""

    start: int
    old: str
    new: str


class Swap(NamedTuple):
    """A twin: its text, why it should be left out (or None), what was changed, and what the way back needs.

    `remember` holds words whose twin is shared (mum and mom both become dad); give it to `swap` to come back.
    """

    text: str
    flagged: str | None
    changes: list[Change]
    remember: dict[str, str]


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


# ------------------------------------------------------------------------------------------------ public


def detect(text: str, *, names: Sequence[Any] | None = None) -> Detection:
    """Say which gender a text speaks of, by pronouns, kinship, gendered nouns, titles and given names.

    Args:
        text: English text.
        names: known names, (male, female) or several such pairs.

    Returns:
        Detection: group "male", "female", "both" or "none", and the words found, in order.

    Raises:
        InputError: text is not a string, or names are not pairs of single words.

    Example:
        >>> detect("The nurse said that she would call her nephew.")
        Detection(group='both', evidence=('she', 'her', 'nephew'))
        >>> detect("Two trains leave at noon.").group
        'none'
    """
    _check(text)
    slots = _read(text, _partners(None, _name_pairs(names)), {}).slots
    genders = {slot.gender for slot in slots}
    group = "both" if len(genders) == 2 else genders.pop() if genders else "none"
    return Detection(group, tuple(slot.old for slot in slots))


def swap(
    text: str,
    *,
    choose: Chooser | None = None,
    token_count: TokenCount | None = None,
    names: Sequence[Any] | None = None,
    remember: Mapping[str, str] | None = None,
    check_round_trip: bool = True,
) -> Swap:
    """Write the twin of a text: every gendered word becomes its counterpart.

    Args:
        text: English text.
        choose: given whole candidate texts, returns the index of the likelier; see `lm_chooser`. Without it an
            undecided *her* or *his* is flagged.
        token_count: number of tokens of a string; names are then paired within the same count where possible.
        names: the pair of names to use, (male, female), or several such pairs; other names use the built-in pairs.
        remember: the `remember` of an earlier swap, to come back to the same words.
        check_round_trip: swap the twin back, and flag the text if that does not give it again.

    Returns:
        Swap: `flagged` is None or a reason, its kind before the colon. A text without gendered words comes back
        as it is.

    Raises:
        InputError: text is not a string, or names are not pairs of single words.

    Example:
        >>> swap("Mr. Hill gave his niece a book of hers.").text
        'Ms. Hill gave her nephew a book of his.'
        >>> swap("She told him that the car is hers.").text
        'He told her that the car is his.'
        >>> swap("She is pregnant.").flagged
        'biology: pregnant'
    """
    _check(text)
    if other_script(text):
        return Swap(text, "script: not Latin", [], {})
    partners = _partners(token_count, _name_pairs(names))
    reading = _read(text, partners, remember or {})
    slots, flags = reading
    if not slots:
        return Swap(text, next((f for f in flags if f.startswith("name without")), None), [], {})

    undecided = [k for k, slot in enumerate(slots) if len(slot.options) > 1]
    picks = [slot.options[0] for slot in slots]
    if undecided and (choose is None or len(undecided) > MOST_CHOICES):
        slot = slots[undecided[0]]
        flags.append(f"undecided: {slot.old} at character {slot.start} is {' or '.join(slot.options)}")
    elif choose is not None:
        for k in undecided:
            trials = [
                _write(text, slots, picks[:k] + [option] + picks[k + 1 :]) for option in slots[k].options
            ]
            picks[k] = slots[k].options[choose(trials)]

    twin = _write(text, slots, picks)
    memory = dict(slot.memory for slot in slots if slot.memory)
    if check_round_trip and _back(twin, slots, partners, memory) != text:
        flags.append("round trip: the twin does not come back to the text")
    changes = [Change(slot.start, slot.old, new) for slot, new in zip(slots, picks, strict=True)]
    return Swap(twin, flags[0] if flags else None, changes, memory)


def lm_chooser(model: Any, tokenizer: Any) -> Chooser:
    """Make a `choose` for `swap` that picks the text a causal language model finds likelier.

    The score is the total log-likelihood of the text (nats), after the tokenizer's start token where it has one.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.

    Returns:
        A function from candidate texts to the index of the likeliest.

    Example:
        >>> swap("She saw her duck.", choose=lambda texts: 0).text  # any function of this shape will do
        'He saw his duck.'
    """
    import torch

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id

    @torch.no_grad()
    def score(text: str) -> float:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([([start] if start is not None else []) + ids], device=model.device)
        logits = model(input_ids=ids).logits[0, :-1].float()
        return float(torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None]).sum())

    def choose(texts: list[str]) -> int:
        scores = [score(text) for text in texts]
        return scores.index(max(scores))

    return choose


def swapper(load: Callable[[], Any]) -> Callable[[str], Swap]:
    """Make a `swap` with the model at hand: it chooses where grammar cannot, and its tokenizer pairs the names.

    Args:
        load: gives an object with ``model`` and ``tokenizer``; called at the first text.

    Returns:
        A function from a text to its `Swap`.
    """

    @lru_cache(maxsize=1)
    def ready() -> Callable[[str], Swap]:
        loaded = load()

        def token_count(text: str) -> int:
            return len(loaded.tokenizer(text, add_special_tokens=False).input_ids)

        return partial(swap, choose=lm_chooser(loaded.model, loaded.tokenizer), token_count=token_count)

    return lambda text: ready()(text)


# ------------------------------------------------------------------------------------------------ checks, names


def _check(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(
            f"text is {type(text).__name__} {text!r:.40}; only strings can be swapped, give one text at a time"
        )


def other_script(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return sum(ord(c) > 0x24F for c in letters) * 2 > len(letters)


def _name_pairs(names: Sequence[Any] | None) -> tuple[tuple[str, str], ...]:
    if names is None:
        return ()
    pairs = [names] if len(names) == 2 and all(isinstance(n, str) for n in names) else list(names)
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(n, str) and re.fullmatch(r"[^\W\d_]+", n) for n in pair):
            raise InputError(
                f"names has {pair!r}; a name without a twin cannot be swapped, give (male, female), one word each"
            )
    return tuple((pair[0], pair[1]) for pair in pairs)


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


# ------------------------------------------------------------------------------------------------ tokens

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


_DOTTED = frozenset("Mr Mrs Ms Dr Prof St Jr Sr Mme Rev Capt Lt Sgt Gen Sen Gov".split())


def _like(old: str, new: str) -> str:
    """Give a word the capitals of the one it replaces."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new


# ------------------------------------------------------------------------------------------------ reading

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


def _read(text: str, partners: Mapping[str, _Name], remember: Mapping[str, str]) -> _Reading:
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
    """Read "Mr.", "Mrs. Smith", "Madam President" at token i; returns the slot and the last token it covers."""
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
    """A name that would come to stand for two people."""
    starts = {slot.start for slot in slots}
    still = {t.text for t in tokens if t.word and t.start not in starts}
    for slot in slots:
        if slot.old in partners and slot.options[0] in still:
            return slot.options[0]
    return None


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


# ------------------------------------------------------------------------------------------------ writing


def _write(text: str, slots: Sequence[_Slot], picks: Sequence[str]) -> str:
    parts, at = [], 0
    for slot, new in zip(slots, picks, strict=True):
        parts += [text[at : slot.start], new]
        at = slot.end
    return "".join(parts) + text[at:]


def _back(twin: str, slots: Sequence[_Slot], partners: Mapping[str, _Name], memory: Mapping[str, str]) -> str:
    """The twin's own twin; where grammar is undecided there, the original word is accepted if it may stand."""
    back = _read(twin, partners, memory).slots
    olds = [slot.old for slot in slots] if len(slots) == len(back) else [""] * len(back)
    picks = [old if old in slot.options else slot.options[0] for slot, old in zip(back, olds, strict=True)]
    return _write(twin, back, picks)
