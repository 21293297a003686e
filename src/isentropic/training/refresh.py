"""Responses sampled again during training, as the method's public ancestor does:
``--refresh_responses N``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isentropic.responses.batches import Item
from isentropic.responses.response import Draw, Example
from isentropic.responses.sample import ResponseSampler


class RefreshedResponses:
    """Samples the responses of a batch again from the current weights, at every Nth step.

    Args:
        every: N, in optimizer steps.
        sampler: gives the sampler of one kind of draw; it must sample from the current weights.
        shared: whether twins share their responses.
    """

    def __init__(self, every: int, sampler: Callable[[int], ResponseSampler], *, shared: bool) -> None:
        self.every, self.sampler, self.shared = every, sampler, shared
        self.numbers: dict[int, int] = {}
        """Item -> the number of the refreshment that its responses come from."""

    def refresh(self, items: Sequence[Item], step: int) -> None:
        """Give the items the responses of this step."""
        number = step // self.every
        stale = [item for item in items if self.numbers.get(item.index) != number]
        if not stale:
            return
        sampler = self.sampler(Draw.REFRESHED + number)
        sampled = sampler.examples([item.prompts for item in stale], shared=self.shared)
        for item, examples in zip(stale, sampled, strict=True):
            item.examples = examples
            self.numbers[item.index] = number

    def state(self, items: Sequence[Item]) -> dict[int, Any]:
        """The responses of all items, as JSON can hold them; a prompt is named by its place in its item."""
        return {
            index: (number, [example_row(items[index], example) for example in items[index].examples])
            for index, number in self.numbers.items()
        }

    def load(self, state: dict[str, Any], items: Sequence[Item]) -> None:
        for index, (number, rows) in state.items():
            item = items[int(index)]
            item.examples = [example_from(item, row) for row in rows]
            self.numbers[item.index] = number


def example_row(item: Item, example: Example) -> list[Any]:
    place = item.prompts.index(example.prompt)
    return [place, example.prompt_ids, example.response_ids, example.source, example.sample]


def example_from(item: Item, row: Sequence[Any]) -> Example:
    place, prompt_ids, response_ids, source, sample = row
    return Example(item.prompts[place], tuple(prompt_ids), tuple(response_ids), source, sample)


def without_responses(items: Sequence[Item]) -> dict[str, Any]:
    """A micro-batch that is collated when its step begins and its responses are there."""
    return {"items": list(items)}
