"""Train, validation and test: which prompt goes where."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from isentropic.prompts.prompt_set import SPLITS, Unit, _each_group_everywhere, _identity, _noun
from isentropic.text import plain

MIN_TOPICS = 12
"""From this many topics on, a split takes whole topics: the interval then speaks of new topics."""


def _split(
    units: list[Unit],
    groups: tuple[str, ...],
    seed: int,
    fractions: tuple[float, float, float],
    notes: list[str],
) -> list[Unit]:
    """Cut the splits that are missing from train (from everything where nothing is marked)."""
    present = {unit[0].split for unit in units}
    pool = [unit for unit in units if unit[0].split in ("train", "")]
    missing = [name for name in ("test", "validation") if name not in present]
    if not pool or not missing:
        # Where all three are marked, what is not marked trains.
        return [tuple(replace(p, split=p.split or "train") for p in unit) for unit in units]
    share = dict(zip(SPLITS, fractions, strict=True))
    total = share["train"] + sum(share[name] for name in missing)
    shares = {name: share[name] / total for name in missing}

    topic_of = _linked(pool, lambda unit: unit[0].topic or "")
    sizes = Counter(map(topic_of, pool))
    known = all(unit[0].topic is not None for unit in pool)
    by_topic = known and len(sizes) >= MIN_TOPICS and max(sizes.values()) <= len(pool) // 6
    chosen = _cut(pool, shares, seed, topic_of) if by_topic else None
    if chosen is None or not _each_group_everywhere(pool, chosen, groups, len(missing) + 1):
        by_topic, chosen = False, {}
        family_of = _linked(pool, _identity)
        if max(Counter(map(family_of, pool)).values()) > len(pool) // 4:  # too little would be left to split
            family_of = _identity
        # Single prompts are cut group by group, so that every split holds every group.
        for g in groups if len(units[0]) == 1 else groups[:1]:
            part = [unit for unit in pool if len(unit) > 1 or unit[0].group == g]
            chosen |= _cut(part, shares, seed, family_of)
    counts = Counter(chosen[_identity(unit)] for unit in pool)
    notes.append(
        f"{' and '.join(reversed(missing))} cut from {'all' if '' in present else 'train'} by hash (seed "
        f"{seed}){', whole topics' if by_topic else ''}: "
        + ", ".join(f"{name} {counts[name]}" for name in SPLITS if counts[name])
        + f" {_noun(units)}"
    )
    return [
        tuple(replace(p, split=chosen[_identity(unit)]) for p in unit)
        if unit[0].split in ("train", "")
        else unit
        for unit in units
    ]


def _cut(pool: list[Unit], shares: dict[str, float], seed: int, key: Callable[[Unit], str]) -> dict[str, str]:
    """Identity of each unit -> split; units of one key stay together,
    keys are taken in the order of their hash."""
    together: dict[str, list[Unit]] = {}
    for unit in pool:
        together.setdefault(key(unit), []).append(unit)
    order = sorted(together, key=lambda k: hashlib.sha256(f"{seed}|{k}".encode()).digest(), reverse=True)
    chosen = {_identity(unit): "train" for unit in pool}
    n = len(pool)
    for name, part in shares.items():
        # At least 8, but never more than a quarter: a small set must keep something to train on.
        need = max(round(part * n), min(8, n // 4), 1)
        while need > 0 and len(order) > 1:
            for unit in together[order.pop()]:
                chosen[_identity(unit)] = name
                need -= 1
    return chosen


def _linked(pool: list[Unit], key: Callable[[Unit], str]) -> Callable[[Unit], str]:
    """The first of all keys that a unit's key is linked to by prompts that pairs share."""
    leader = {key(unit): key(unit) for unit in pool}

    def first(unit: Unit) -> str:
        name = key(unit)
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    seen: dict[tuple[str, str], Unit] = {}
    for unit in pool:
        for prompt in unit:
            low, high = sorted(
                (first(unit), first(seen.setdefault((prompt.group, plain(prompt.text)), unit)))
            )
            leader[high] = low
    return first
