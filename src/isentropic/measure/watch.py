"""Entropies taken while responses are sampled: no token goes through the model twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.score import score_examples
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.response import Entropies, Example, Job, Jobs, Tokens

TOLERANCE = 1e-5
"""How far an entropy, in nats, may be from that of the plain scorer."""


class EntropyWatch:
    """Scores responses while they are sampled.

    A prompt's own response has the entropies of the logits that it is drawn from; the response of a twin
    goes on from the prompt's keys and values, which are still there. The scorer has the last word: it scores
    the first and the last prompt of each batch too, and once they differ by more than `TOLERANCE` nothing
    that was found counts.

    Args:
        model: the model that is sampled from, not sharded.
        scorer: scores what is not ``known``.
        pad: the token that fills rows.
        bf16: as in sampling.
    """

    def __init__(self, model: Any, scorer: EntropyScorer, *, pad: int, bf16: bool = False) -> None:
        self.model, self.scorer, self.pad, self.bf16 = model, scorer, pad, bf16
        self.on = True
        self.twins: dict[Tokens, tuple[Tokens, ...]] = {}
        self.known: Entropies = {}
        self.steps: list[Tensor] = []

    def step(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        """Note the entropies of the next tokens; the logits stay as they are."""
        self.steps.append(entropies_of(logits))
        return logits

    def batch(self, jobs: Jobs, drawn: Mapping[Job, Tokens], mask: Tensor, past: Any) -> None:
        """Score the responses of a batch, and on each prompt those of its twins that are drawn already."""
        own, self.steps = torch.stack(self.steps, dim=1), []
        found = {
            (job[0], drawn[job]): float(row[: len(drawn[job])].mean())
            for job, row in zip(jobs, own, strict=True)
        }
        others = [
            [
                drawn[twin, sample]
                for twin in self.twins.get(ids, ())
                if twin != ids and (twin, sample) in drawn
            ]
            for ids, sample in jobs
        ]
        try:
            for responses in zip_longest(*others, fillvalue=()):
                past.crop(mask.shape[1] - past.get_seq_length())
                sums = own[:, 0] + self.after_the_first(responses, mask, past)
                found |= {
                    (ids, response): float(total) / len(response)
                    for (ids, _), response, total in zip(jobs, responses, sums, strict=True)
                    if response
                }
        except Exception:  # whatever the model and its cache make of it
            found = dict.fromkeys(found, np.nan)
        checked = [key for key in found if key[0] in (jobs[0][0], jobs[-1][0])]
        examples = [Example(Prompt("", ""), *key, "") for key in checked]
        truth = score_examples(self.model, self.scorer, examples, pad=self.pad, bf16=self.bf16)
        self.on = bool(np.abs(truth - [found[key] for key in checked]).max() <= TOLERANCE)
        if self.on:
            self.known |= found
        else:
            self.known.clear()

    def after_the_first(self, responses: Sequence[Tokens], mask: Tensor, past: Any) -> Tensor:
        """(rows,) token entropies of a response behind each prompt, summed from the second token on."""
        longest = max(map(len, responses))
        if longest < 2:
            return torch.zeros(len(responses), device=mask.device)
        rows = [[*response[:-1], *[self.pad] * longest][: longest - 1] for response in responses]
        input_ids = torch.tensor(rows, device=mask.device)
        lengths = torch.tensor([len(response) for response in responses], device=mask.device)
        predicts = torch.arange(1, longest, device=mask.device) < lengths[:, None]
        return self.scorer.score_after(self.model, past, mask, input_ids, predicts).sums


def entropies_of(logits: Tensor) -> Tensor:
    """(rows,) entropies of float32 logits (rows, V), to some 1e-6 nats.

    PyTorch's log_softmax is off by 1e-5 on a CPU where the vocabulary is large.
    """
    u = (logits - logits.amax(dim=1, keepdim=True)).clamp_(
        min=-1e30
    )  # e is 0 there, and 0 * -inf would be nan
    e = u.exp()
    total = e.sum(dim=1)
    return total.log() - u.mul_(e).sum(dim=1) / total
