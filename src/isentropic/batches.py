"""The unit of a batch is a tuple with one prompt of each group: pairs are never split, groups always balanced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from isentropic.errors import InputError
from isentropic.prompts import Prompt, PromptSet
from isentropic.responses import Example


@dataclass
class Item:
    """One prompt of each group (twins where the data has them) and the examples they are scored on."""

    prompts: tuple[Prompt, ...]
    examples: list[Example] = field(default_factory=list)
    index: int = 0

    @property
    def topic(self) -> str | None:
        return self.prompts[0].topic


def prompt_tuples(prompt_set: PromptSet, *, matched: bool = True, seed: int = 0) -> list[tuple[Prompt, ...]]:
    """One prompt of each group at a time: the twins, or, without twins, prompts drawn to the length of the largest group.

    Args:
        matched: ``False`` parts the twins on purpose, as a tool without pairs would.

    Raises:
        InputError: a group has no prompt.
    """
    if prompt_set.paired and matched:
        return prompt_set.tuples()
    rng = np.random.default_rng([seed, 7])
    by_group = [[p for p in prompt_set.prompts if p.group == group] for group in prompt_set.groups]
    for group, prompts in zip(prompt_set.groups, by_group, strict=True):
        if not prompts:
            raise InputError(
                f"{prompt_set.name!r} has no prompt of group {group!r}; a batch needs each group, or there is no gap; "
                f"add some, or leave the group out"
            )
    longest = max(len(prompts) for prompts in by_group)
    columns = []
    for prompts in by_group:
        order = np.concatenate([rng.permutation(len(prompts)) for _ in range(-(-longest // len(prompts)))])
        columns.append([prompts[i] for i in order[:longest]])
    return list(zip(*columns, strict=True))


class StratifiedSampler(Sampler[int]):
    """Endless shuffled passes over the items, each topic spread evenly over a pass, cut at ``total``.

    An item's place in a pass is ``(rank within its shuffled topic + u) / (items in the topic)``, u uniform in [0, 1):
    any stretch of a pass then holds every topic in proportion. The order depends on the seed alone, so every process
    draws the same one and a resumed run goes on where it was.

    Example:
        >>> sampler = StratifiedSampler(["a", "a", "b", "b"], total=6, seed=0)
        >>> len(list(sampler)), sorted(list(sampler)[:4])
        (6, [0, 1, 2, 3])
    """

    def __init__(self, topics: Sequence[str | None], total: int, seed: int) -> None:
        self.total, self.seed = total, seed
        names, self.labels = np.unique([str(topic) for topic in topics], return_inverse=True)
        self.sizes = np.bincount(self.labels, minlength=len(names))

    def __len__(self) -> int:
        return self.total

    def one_pass(self, number: int) -> np.ndarray:
        """The order of pass ``number``: every item once."""
        rng = np.random.default_rng([self.seed, number])
        shuffled = rng.permutation(len(self.labels))
        by_topic = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        ranks = np.empty(len(self.labels))
        ranks[by_topic] = np.concatenate([np.arange(size) for size in self.sizes])
        return np.argsort((ranks + rng.random(len(ranks))) / self.sizes[self.labels])

    def __iter__(self) -> Iterator[int]:
        given = number = 0
        while given < self.total:
            for index in self.one_pass(number)[: self.total - given]:
                yield int(index)
                given += 1
            number += 1


def collate_examples(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Pad on the right and mark the positions that predict a response token.

    The token at position t predicts the one at t + 1, so a prompt of p tokens and a response of r tokens are scored
    at positions p-1 ... p+r-2.

    Returns:
        ``input_ids``, ``attention_mask`` and ``predicts`` (bool), each of shape (examples, longest).

    Example:
        A prompt of two tokens with a response of two, and one of three with the end token (9) alone; pad is 9 too.

        >>> p = Prompt("", "male")
        >>> batch = collate_examples([Example(p, (5, 6), (7, 9), "male"), Example(p, (5, 6, 8), (9,), "male")], pad=9)
        >>> batch["input_ids"].tolist(), batch["predicts"].int().tolist()
        ([[5, 6, 7, 9], [5, 6, 8, 9]], [[0, 1, 1, 0], [0, 0, 1, 0]])
    """
    width = max(len(example) for example in examples)
    input_ids = torch.full((len(examples), width), pad)
    attention_mask = torch.zeros((len(examples), width), dtype=torch.long)
    predicts = torch.zeros((len(examples), width), dtype=torch.bool)
    for row, example in enumerate(examples):
        ids = example.prompt_ids + example.response_ids
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        predicts[row, len(example.prompt_ids) - 1 : len(ids) - 1] = True
    return {"input_ids": input_ids, "attention_mask": attention_mask, "predicts": predicts}


def collate_items(items: Sequence[Item], pad: int) -> dict[str, Any]:
    """A micro-batch: the examples of all items as tensors, with the items themselves beside them."""
    return {
        **collate_examples([example for item in items for example in item.examples], pad),
        "items": list(items),
    }
