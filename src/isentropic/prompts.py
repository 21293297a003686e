"""Prompts and pairs: the built-in sets."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace

from isentropic import builtin_prompts
from isentropic.errors import InputError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text given to the model, marked with a group.

    Example:
        >>> Prompt("She is a nurse. She", "female", pair_id="nurse").split
        'train'
    """

    text: str
    group: str
    pair_id: str | None = None
    topic: str | None = None
    split: str = "train"
    cell: str | None = None
    row: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class PromptSet:
    """Prompts, their groups in order, and how they were read."""

    prompts: tuple[Prompt, ...]
    groups: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    def split(self, *names: str) -> PromptSet:
        """The prompts of the named splits, in the same order."""
        return replace(self, prompts=tuple(p for p in self.prompts if p.split in names))

    @property
    def paired(self) -> bool:
        """Every prompt has a `pair_id` and every pair has exactly one prompt of each group."""
        members: dict[str, list[str]] = {}
        for p in self.prompts:
            if p.pair_id is None:
                return False
            members.setdefault(p.pair_id, []).append(p.group)
        return bool(members) and all(sorted(m) == sorted(self.groups) for m in members.values())

    def tuples(self) -> list[tuple[Prompt, ...]]:
        """Twins: one tuple a pair, one prompt a group in the order of `groups`."""
        if not self.paired:
            raise InputError(f"{self.name} is not paired; only pairs have twins, use own responses")
        members: dict[str, dict[str, Prompt]] = {}
        for p in self.prompts:
            members.setdefault(p.pair_id or "", {})[p.group] = p
        return [tuple(pair[g] for g in self.groups) for pair in members.values()]

    def counts(self) -> dict[str, int]:
        """Number of prompts of each group."""
        found = Counter(p.group for p in self.prompts)
        return {g: found[g] for g in self.groups}

    def ratio_line(self) -> str:
        """The group ratio as one line, in the guide's words for two genders."""
        counts = self.counts()
        head = "男女比例 / " if self.groups == ("male", "female") else ""
        return f"{head}{':'.join(counts)} = {':'.join(map(str, counts.values()))}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of all prompts (texts, groups, pairs, topics and splits)."""
        rows = [[p.text, p.group, p.pair_id, p.topic, p.split, p.cell] for p in self.prompts]
        canonical = json.dumps([self.groups, rows], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def builtin(name: str = "gender") -> PromptSet:
    """A built-in set of prompts."""
    groups, rows = builtin_prompts.BUILTIN[name]
    prompts = tuple(Prompt(r.text, r.group, r.pair_id, r.topic, r.split, r.cell) for r in rows(groups))
    return PromptSet(prompts, groups, f"built-in {name} prompts")


def load_prompts(source: str | None = None) -> PromptSet:
    """The built-in gender prompts."""
    if source not in (None, "gender"):
        raise InputError(f"prompts {source!r} cannot be read yet; use the built-in set")
    return builtin()
