"""What a change cost the model: KL to the base on neutral text,
length and repetition of its answers, perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isentropic import gap as statistics
from isentropic.errors import InputError
from isentropic.measure.summary import answer_figures
from isentropic.models.model import LoadedModel, context_length, evaluating, precision, vocabulary_size
from isentropic.prompts.builtin import NEUTRAL_TEXTS
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import collate_examples, token_batches
from isentropic.responses.encode import check_vocabulary
from isentropic.responses.response import Example
from isentropic.responses.sample import ResponseSampler

REFERENCE_BYTES = 96 * 2**20
"""Memory for the base model's log-probabilities; neutral texts beyond it are left out."""
KL_TOKENS_A_BATCH = 384


def neutral_examples(sampler: ResponseSampler, vocab_size: int) -> list[Example]:
    """Responses of the base model to neutral prompts: text without people, on which nothing should change."""
    most = REFERENCE_BYTES // (4 * vocab_size * sampler.sampling.max_new_tokens)
    prompts = [(Prompt(text, "neutral"),) for text in NEUTRAL_TEXTS[: max(8, most)]]
    return [example for made in sampler.examples(prompts, shared=False) for example in made[:1]]


def answers_of(sampler: ResponseSampler) -> dict[str, float | None]:
    """Length, share ended and variety of a model's own answers to the neutral prompts."""
    examples = neutral_examples(sampler, vocabulary_size(sampler.model))
    return answer_figures([example.response_ids for example in examples], sampler.ends)


class NeutralReference:
    """The base model's next-token distributions on neutral text, to compare later models with.

    .. math:: KL = \\frac{1}{T} \\sum_t \\sum_j p_{tj} (\\log p_{tj} - \\log q_{tj})

    with p of the base, q of the later model and t over the response tokens, in nats a token. Neutral texts
    are the unit of the interval.

    Args:
        model: the base model, before any change.
        examples: neutral prompts with the base model's responses.
    """

    def __init__(
        self, model: nn.Module, examples: Sequence[Example], *, pad: int, bf16: bool = False
    ) -> None:
        self.examples = sorted(examples, key=len)
        self.pad, self.bf16 = pad, bf16
        self.base = list(self.log_probs(model))

    @torch.no_grad()
    def log_probs(self, model: nn.Module) -> Iterator[Tensor]:
        """Log-probabilities at the positions that predict the responses: one (tokens, vocabulary)
        tensor a text."""
        device = next(model.parameters()).device
        with evaluating(model), precision(device, self.bf16):
            for rows in token_batches(self.examples, len, KL_TOKENS_A_BATCH):
                batch = {k: v.to(device) for k, v in collate_examples(rows, self.pad).items()}
                output = model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
                )
                for logits, chosen in zip(output.logits, batch["predicts"], strict=True):
                    yield torch.log_softmax(logits[chosen].float(), -1).cpu()

    def kl_to(self, model: nn.Module) -> dict[str, Any]:
        """KL of the base to ``model``, nats a token, with its 95 % interval over texts.

        It is infinite where ``model`` gives no probability to a token that the base may say. Of two
        vocabularies of different size it is that on the tokens of both.
        """
        totals, counts = [], []
        for pair in zip(self.base, self.log_probs(model), strict=True):
            # A vocabulary may be filled up with ids that no text has.
            both = min(x.shape[1] for x in pair)
            base, now = (x if x.shape[1] == both else x[:, :both].log_softmax(-1) for x in pair)
            p = base.exp()
            # A token that the base never says adds nothing, even where both logits are minus infinity.
            totals.append(float(torch.where(p > 0, p * (base - now), 0.0).sum()))
            counts.append(len(base))
        return ratio_with_interval(np.array(totals), np.array(counts)) | {"n_texts": len(totals)}


def ratio_with_interval(totals: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """``sum(totals) / sum(counts)`` and its 95 % interval:
    each text a cluster of its tokens (linearised ratio)."""
    ratio = float(totals.sum() / counts.sum())
    if len(totals) < 2 or not math.isfinite(ratio):
        return {"kl": ratio, "kl_ci95": None}
    residuals = (totals - ratio * counts) / counts.mean()
    return {"kl": ratio, "kl_ci95": statistics.paired_gap(ratio + residuals).to_dict()["ci95"]}


def known_or_note(value: float, what: str, notes: list[str]) -> float | None:
    """The figure as JSON can hold it: None, with a note that says why, where it is not finite.

    Example:
        >>> notes = []
        >>> known_or_note(math.inf, "perplexity", notes), notes
        (None, ['perplexity is infinite or not a number: the model gives probability 0 to some of the text'])
    """
    if math.isfinite(value):
        return value
    notes.append(f"{what} is infinite or not a number: the model gives probability 0 to some of the text")
    return None


def read_text(file: str) -> str:
    """The text of a file, as perplexity takes it."""
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"text file {file!r} cannot be read ({error}); perplexity needs UTF-8 text; check the path"
        ) from error


def text_tokens(loaded: LoadedModel, file: str) -> list[int]:
    """The tokens of a text file, two at least."""
    ids = loaded.tokenizer(read_text(file), add_special_tokens=False, verbose=False).input_ids
    if len(ids) < 2:
        raise InputError(
            f"text file {file!r} has {len(ids)} tokens; perplexity needs at least two; give a longer text"
        )
    check_vocabulary(ids, loaded.tokenizer, vocabulary_size(loaded.model), f"text file {file!r}")
    return ids


def begin_tokens(loaded: LoadedModel) -> list[int]:
    """The begin token, where the tokenizer puts one before a text;
    a model trained with it needs it in each window."""
    begin = loaded.tokenizer.bos_token_id
    first = loaded.tokenizer("a", verbose=False).input_ids[:1]
    return [begin] if begin is not None and first == [begin] else []


@torch.no_grad()
def perplexity(loaded: LoadedModel, file: str, *, window: int = 512, bf16: bool = False) -> float:
    """``exp(-mean log p)`` over a text file, in windows that do not overlap.

    Where the tokenizer begins a text with a token of its own, so does each window, and every token of the
    text is scored; else the first token of each window is not. A mean too large for a float gives infinity.
    """
    ids, begin = text_tokens(loaded, file), begin_tokens(loaded)
    width = min(window, context_length(loaded.model) or window) - len(begin)
    device = loaded.model.device
    total, count = 0.0, 0
    with evaluating(loaded.model), precision(device, bf16):
        for start in range(0, len(ids), width):
            chunk = torch.tensor([begin + ids[start : start + width]], device=device)
            if chunk.shape[1] < 2:
                continue
            logits = loaded.model(input_ids=chunk, use_cache=False).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, chunk[0, 1:], reduction="sum"))
            count += chunk.shape[1] - 1
    try:
        return math.exp(total / count)
    except OverflowError:
        return math.inf
