"""Nothing of a training step is left to chance, whatever a family calls its dropout and wherever it draws lots."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from isentropic.entropy.reference import token_entropy
from isentropic.entropy.scorer import EntropyScorer
from isentropic.training.exact_loss import without_chance

VOCABULARY = 101
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
ENDS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
SEQ2SEQ = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 32}
CHANCE: dict[str, dict[str, Any]] = {
    "opt": {**WIDE, "ffn_dim": 32, "word_embed_proj_dim": 32, "dropout": 0.3, "layerdrop": 0.5},
    "xglm": {"d_model": 32, "ffn_dim": 32, "num_layers": 2, "attention_heads": 4, "dropout": 0.3},
    "biogpt": {**WIDE, "hidden_dropout_prob": 0.3, "activation_dropout": 0.3, "layerdrop": 0.5},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 32},
    "falcon": {**WIDE, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "starcoder2": {**GROUPED, "residual_dropout": 0.3, "embedding_dropout": 0.3},
    "seed_oss": {**GROUPED, "residual_dropout": 0.3},
    "gpt_neox": {**WIDE, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "mixtral": {**EXPERTS, "router_jitter_noise": 0.3},
    "phimoe": {**EXPERTS, "input_jitter_noise": 0.3, "router_jitter_noise": 0.3},
    "minimax_m2": {**EXPERTS, "router_jitter_noise": 0.3},
    "bart": {**SEQ2SEQ, "dropout": 0.3, "decoder_layerdrop": 0.5},
}


def make_model(family: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **CHANCE[family], **ENDS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.ndim > 1 else parameter.mul_(1.1)
    return model


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (4, 9), generator=generator)
    predicts = torch.zeros_like(ids).bool()
    predicts[:, 4:8] = True
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "predicts": predicts}


def step(model: nn.Module, scorer: EntropyScorer, rows: slice) -> Tensor:
    """The gradient of a micro-batch as the trainer makes it: training mode, then without chance."""
    model.train()
    without_chance(model)
    part = {name: value[rows] for name, value in batch().items()}
    weights = torch.tensor([0.7, -1.3, 0.4, 0.9])[rows]
    return gradients(model, scorer.weighted(model, **part, row_weights=weights)[0])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("family", CHANCE)
def test_the_gradient_is_that_of_the_measured_model_for_any_cut(family, checkpointing):
    model = make_model(family).eval()
    given = batch()
    logits = model(input_ids=given["input_ids"]).logits
    entropies = (token_entropy(logits) * given["predicts"]).sum(1) / given["predicts"].sum(1)
    truth = gradients(model, (torch.tensor([0.7, -1.3, 0.4, 0.9]) * entropies).sum())

    if checkpointing:
        model.gradient_checkpointing_enable()
    scorer = EntropyScorer()
    whole = step(model, scorer, slice(0, 4))
    parts = sum(step(model, scorer, slice(k, k + 1)) for k in range(4))
    again = step(model, scorer, slice(0, 4))
    for found in (whole, parts, again):
        assert (found - truth).norm() <= 1e-4 * truth.norm()


class Counting(nn.Module):
    """Counts how often a layer runs: twice a step where it is checkpointed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.runs = layer, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return self.layer(*args, **kwargs)


def test_gradient_checkpointing_still_recomputes_every_layer():
    model = make_model("opt")
    model.gradient_checkpointing_enable()
    layers = model.model.decoder.layers
    counts = [Counting(layer.fc1) for layer in layers]
    for layer, count in zip(layers, counts, strict=True):
        layer.fc1 = count
    scorer = EntropyScorer(model)
    for count in counts:
        count.runs = 0
    step(model, scorer, slice(0, 4))
    assert [count.runs for count in counts] == [2, 2]


def test_training_mode_comes_back():
    model = make_model("opt")
    model.gradient_checkpointing_enable()
    without_chance(model.train())
    assert not model.lm_head.training and model.model.decoder.layers[0].training
    model.train()
    assert all(part.training for part in model.modules())
