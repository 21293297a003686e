"""Find the gender a text speaks of, and write its twin.

Words are looked up in `words.py`. Two pronouns need grammar: *her* is *his* or *him*, *his* is *her* or
*hers*. Local rules decide these; where the rules are unsure, a language model may choose (`lm_chooser`), or
the text is flagged. A flagged text should be left out: its twin is a best guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from isentropic.errors import InputError
from isentropic.prompts.swap.language import foreign_language
from isentropic.prompts.swap.names import TokenCount, _partners
from isentropic.prompts.swap.reading import Change, _back, _read, _write

Chooser = Callable[[list[str]], int]

MOST_CHOICES = 8  # undecided pronouns in one text; each costs one question to the language model


class Detection(NamedTuple):
    """The gender a text is about ("male", "female", "both", "none") and the words that say so."""

    group: str
    evidence: tuple[str, ...]


class Swap(NamedTuple):
    """A twin: its text, why it should be left out (or None), what was changed, and what the way back needs.

    `remember` holds words whose twin is shared (mum and mom both become dad); give it to `swap` to come back.
    """

    text: str
    flagged: str | None
    changes: list[Change]
    remember: dict[str, str]


# --- Public -------------------------------------------------------------------------------------------------


def detect(text: str, *, names: Sequence[Any] | None = None) -> Detection:
    """Find which gender a text is about, by pronouns, kinship, gendered nouns, titles and given names.

    Args:
        text: English text; one in another script or language is read as "none".
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
    if not_read(text):
        return Detection("none", ())
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

    Long because of this text; the work is done by the reading and the checks.

    Args:
        text: English text.
        choose: given whole candidate texts, returns the index of the likelier; see `lm_chooser`. Without it
            an undecided *her* or *his* is flagged.
        token_count: number of tokens of a string; names are then paired within the same count where possible.
        names: the pair of names to use, (male, female), or several such pairs; other names use the built-in
            pairs.
        remember: the `remember` of an earlier swap, to come back to the same words.
        check_round_trip: swap the twin back, and flag the text if that does not give it again.

    Returns:
        Swap: `flagged` is None or a reason, its kind before the colon. A text without gendered words comes
        back as it is.

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
    if reason := not_read(text):
        return Swap(text, reason, [], {})
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

    The score is the total log-likelihood of the text (nats), after the tokenizer's start token where it has
    one.

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
    """Make a `swap` that uses a model: it chooses where grammar cannot, and its tokenizer pairs the names.

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

    return lambda text: ready()(text)  # noqa: PLW0108 - the model is loaded at the first text


# --- Checks, names ------------------------------------------------------------------------------------------


def _check(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(
            f"text is {type(text).__name__} {text!r:.40}; only strings can be swapped, give one text at a "
            "time"
        )


def other_script(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return sum(ord(c) > 0x24F for c in letters) * 2 > len(letters)


def not_read(text: str) -> str | None:
    """Why a text is not read: another script, or another language. Only English is."""
    if other_script(text):
        return "script: not Latin"
    language = foreign_language(text)
    return f"language: {language}, not English" if language else None


def _name_pairs(names: Sequence[Any] | None) -> tuple[tuple[str, str], ...]:
    if names is None:
        return ()
    pairs = [names] if len(names) == 2 and all(isinstance(n, str) for n in names) else list(names)
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(n, str) and re.fullmatch(r"[^\W\d_]+", n) for n in pair):
            raise InputError(
                f"names has {pair!r}; a name without a twin cannot be swapped, give (male, female), one word "
                "each"
            )
    return tuple((pair[0], pair[1]) for pair in pairs)
