"""Batches: what goes through the model at once. In training the unit is a tuple with one prompt of each
group, so pairs are never split and groups always balanced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from isentropic.errors import InputError
from isentropic.prompts.prompt_set import Prompt, PromptSet
from isentropic.responses.response import Example


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
    """One prompt of each group at a time: the twins, or, without twins,
    prompts drawn to the length of the largest group.

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
                f"{prompt_set.name!r} has no prompt of group {group!r}; a batch needs each group, or there "
                "is no gap; add some, or leave the group out"
            )
    longest = max(len(prompts) for prompts in by_group)
    columns = []
    for prompts in by_group:
        order = np.concatenate([rng.permutation(len(prompts)) for _ in range(-(-longest // len(prompts)))])
        columns.append([prompts[i] for i in order[:longest]])
    return list(zip(*columns, strict=True))


class StratifiedSampler(Sampler[int]):
    """Endless shuffled passes over the items, each topic spread evenly over a pass, cut at ``total``.

    An item's place in a pass is ``(rank within its shuffled topic + u) / (items in the topic)``, u uniform in
    [0, 1): any stretch of a pass then holds every topic in proportion. The order depends on the seed alone,
    so every process draws the same one and a resumed run continues where it was.

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


def pack(examples: Sequence[Example], longest: int) -> list[list[Example]]:
    """Rows of examples: neighbours with the same prompt share a row while it has at most ``longest`` tokens.

    Example:
        >>> p = Prompt("", "male")
        >>> a, b, c = (Example(p, ids, (7, 9), "male") for ids in [(5, 6), (5, 6), (5, 8)])
        >>> [len(row) for row in pack([a, b, c], longest=64)]
        [2, 1]
        >>> [len(row) for row in pack([a, b, c], longest=0)]
        [1, 1, 1]
    """
    rows: list[list[Example]] = []
    for example in examples:
        same = bool(rows) and rows[-1][0].prompt_ids == example.prompt_ids
        if same and row_length([*rows[-1], example]) <= longest:
            rows[-1].append(example)
        else:
            rows.append([example])
    return rows


def row_length(row: Sequence[Example]) -> int:
    """Tokens of a row: the prompt once, but its last token before each response."""
    return len(row[0].prompt_ids) - 1 + sum(1 + len(example.response_ids) for example in row)


def collate_rows(rows: Sequence[Sequence[Example]], pad: int) -> dict[str, torch.Tensor]:
    """Lay the responses of a row behind its prompt, pad on the right,
    mark the positions that predict a response token.

    A row is ``prompt[:-1]``, then for each example the prompt's last token and the response. So the token at
    position t predicts the one at t + 1 everywhere: a prompt of p tokens and one response of r are scored at
    p-1 ... p+r-2.

    Returns:
        ``input_ids``, ``attention_mask`` and ``predicts`` (bool), each of shape (rows, longest). Where a row
        holds several examples also ``owners``: the number of the example that a token belongs to, in the
        order of the rows, and -1 for what all examples of the row share.

    Example:
        The responses (7, 9) and (8, 9) to the prompt (5, 6).

        >>> p = Prompt("", "male")
        >>> row = [Example(p, (5, 6), (7, 9), "male"), Example(p, (5, 6), (8, 9), "female")]
        >>> batch = collate_rows([row], pad=9)
        >>> batch["input_ids"].tolist(), batch["predicts"].int().tolist(), batch["owners"].tolist()
        ([[5, 6, 7, 9, 6, 8, 9]], [[0, 1, 1, 0, 1, 1, 0]], [[-1, 0, 0, 0, 1, 1, 1]])
    """
    shape = (len(rows), max(row_length(row) for row in rows))
    input_ids = torch.full(shape, pad)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    predicts = torch.zeros(shape, dtype=torch.bool)
    owners = torch.full(shape, -1)
    owner = 0
    for number, row in enumerate(rows):
        *shared, last = row[0].prompt_ids
        ids = list(shared)
        for example in row:
            start = len(ids)
            ids += [last, *example.response_ids]
            predicts[number, start : len(ids) - 1] = True
            owners[number, start : len(ids)] = owner
            owner += 1
        input_ids[number, : len(ids)] = torch.tensor(ids)
        attention_mask[number, : len(ids)] = 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "predicts": predicts}
    return batch if owner == len(rows) else {**batch, "owners": owners}


def collate_examples(examples: Sequence[Example], pad: int, longest: int = 0) -> dict[str, torch.Tensor]:
    """The examples as tensors, packed into rows of at most ``longest`` tokens; 0 gives each a row of its own.

    Example:
        A prompt of two tokens with a response of two, and one of three with the end token (9) alone; pad is 9
        too.

        >>> p = Prompt("", "male")
        >>> examples = [Example(p, (5, 6), (7, 9), "male"), Example(p, (5, 6, 8), (9,), "male")]
        >>> batch = collate_examples(examples, pad=9)
        >>> batch["input_ids"].tolist(), batch["predicts"].int().tolist()
        ([[5, 6, 7, 9], [5, 6, 8, 9]], [[0, 1, 1, 0], [0, 0, 1, 0]])
    """
    return collate_rows(pack(examples, longest), pad)


def collate_items(items: Sequence[Item], pad: int, longest: int = 0) -> dict[str, Any]:
    """A micro-batch: the examples of all items as tensors, with the items themselves beside them."""
    return {
        **collate_examples([example for item in items for example in item.examples], pad, longest),
        "items": list(items),
    }


# --- By length ----------------------------------------------------------------------------------------------

TOKENS_A_BATCH = 2048
"""Padded tokens that go through the model at once where nothing is kept for a backward pass, on a CPU."""
GPU_TOKENS_A_BATCH = 8 * TOKENS_A_BATCH
"""The same on a GPU, where a step of decoding takes about as long for many rows as for a few."""


def tokens_a_batch(device: torch.device) -> int:
    """How many padded tokens go through the model at once on a device,
    where nothing is kept for a backward pass."""
    return TOKENS_A_BATCH if device.type == "cpu" else GPU_TOKENS_A_BATCH


def token_batches(
    items: Sequence[Any], length: Callable[[Any], int], budget: int = TOKENS_A_BATCH
) -> Iterator[list]:
    """Cut items, sorted by length beforehand,
    into batches of at most ``budget`` padded tokens (one item at least)."""
    batch: list = []
    longest = 0
    for item in items:
        longest = max(longest, length(item))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], length(item)
        batch.append(item)
    if batch:
        yield batch
