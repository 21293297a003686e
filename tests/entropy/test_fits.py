"""What is no causal language model, cannot be trained, or hides its decoder; and what rounding may do."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from isentropic.entropy.fits import log_odds_error, ordinary_ids, same_logits
from isentropic.entropy.reference import token_entropy
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError

VOCABULARY = 203
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8}
ENDS = {"vocab_size": VOCABULARY, "bos_token_id": 2, "eos_token_id": 0, "pad_token_id": 1}


def make(family: str, **config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **ENDS | config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def rows(*lengths: int) -> dict[str, torch.Tensor]:
    """Rows of tokens, padded with 1 on the right; the last four of each are its response."""
    width = max(lengths)
    ids = torch.randint(60, 150, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    place = torch.arange(width)[None]
    ends = torch.tensor(lengths)[:, None]
    mask = (place < ends).long()
    predicts = (place >= ends - 5) & (place < ends - 1)
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask, "predicts": predicts}


def plain_sums(model: nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """Row by row from the plain model: its tokens and nothing else."""
    sums = []
    for ids, mask, predicts in zip(*given.values(), strict=True):
        n = int(mask.sum())
        sums.append(token_entropy(model(input_ids=ids[None, :n]).logits[0])[predicts[:n]].sum())
    return torch.stack(sums)


# ---- causal or not -------------------------------------------------------------------------------------------

TWO_SIDED = {
    "bert": WIDE,
    "roberta": WIDE,
    "electra": {**WIDE, "embedding_size": 32},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "big_bird": {**WIDE, "attention_type": "original_full"},
}


@pytest.mark.parametrize("family", TWO_SIDED)
def test_what_looks_at_later_tokens_is_refused_at_every_door(family):
    model = make(family, **TWO_SIDED[family])
    line = "is not a causal language model: in a row of 16 tokens its prediction of token"
    with pytest.raises(InputError, match=line):
        EntropyScorer(model)
    with pytest.raises(InputError, match=line):
        EntropyScorer().longest_row(model)
    with pytest.raises(InputError, match=line):
        EntropyScorer(engine="logits").score(model, **rows(9, 7))


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "electra"])
def test_encoders_built_as_decoders_are_those_of_the_plain_model(family):
    """RoBERTa and its kin count positions from behind the padding id."""
    more = {"embedding_size": 32} if family == "electra" else {}
    model = make(family, **WIDE, is_decoder=True, max_position_embeddings=64, **more)
    given = rows(14, 9, 20)
    assert torch.allclose(EntropyScorer().score(model, **given).sums, plain_sums(model, given), rtol=1e-5)


class PeeksWhenLong(LlamaForCausalLM):
    """Looks at the end of the row, but only in rows of more than 30 tokens."""

    def forward(self, input_ids=None, **kwargs):
        output = super().forward(input_ids, **kwargs)
        if input_ids.shape[1] > 30:
            output.logits = output.logits + self.lm_head(self.model.embed_tokens(input_ids[:, -1:]))
        return output


def test_what_peeks_in_long_rows_alone_is_refused_there():
    torch.manual_seed(0)
    model = PeeksWhenLong(LlamaConfig(**GROUPED, **ENDS, initializer_range=0.3)).eval()
    scorer = EntropyScorer(model, engine="logits")
    given = rows(30, 12)
    assert torch.allclose(scorer.score(model, **given).sums, plain_sums(model, given), rtol=1e-5)
    with pytest.raises(InputError, match="in a row of 31 tokens"):
        scorer.score(model, **rows(31, 12))


def test_doge_that_keeps_fewer_tokens_than_a_row_has_is_scored_as_the_plain_model_reads_each_row():
    """What it keeps depends on how long the row is."""
    model = make("doge", **WIDE, num_key_value_heads=2, keep_window_size=18)
    scorer = EntropyScorer(model)
    for given in (rows(17, 12), rows(60, 17, 31, 60)):
        assert torch.allclose(scorer.score(model, **given).sums, plain_sums(model, given), rtol=1e-5)


class Rolling(LlamaForCausalLM):
    """Draws lots whatever mode it is in."""

    def forward(self, input_ids=None, **kwargs):
        output = super().forward(input_ids, **kwargs)
        output.logits = nn.functional.dropout(output.logits, 0.5, training=True)
        return output


def test_what_rolls_dice_is_refused():
    model = Rolling(LlamaConfig(**GROUPED, **ENDS, initializer_range=0.3)).eval()
    with pytest.raises(InputError, match="different predictions for the same tokens each time"):
        EntropyScorer(model)


@pytest.mark.parametrize(
    "family, config",
    [
        ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 20}),
        ("mpt", {"d_model": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 20, "expansion_ratio": 2}),
    ],
)
def test_a_row_beyond_the_context_gets_a_line_that_speaks_of_it(family, config):
    model = make(family, **config)
    scorer = EntropyScorer(model)
    assert scorer.score(model, **rows(20)).counts.tolist() == [4]
    with pytest.raises(InputError, match="cannot read a row of 21 tokens .* context"):
        scorer.score(model, **rows(21, 12))


# ---- the decoder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "logits"])
def test_a_decoder_that_is_the_head_is_none(engine, caplog):
    layers = {"layer_types": ["sliding_attention", "full_attention"], "local_attention": 64}
    model = make("modernbert-decoder", **WIDE, **layers, tie_word_embeddings=False)
    given = rows(14, 9)
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        scorer = EntropyScorer(engine=engine)
        sums = scorer.score(model, **given).sums
    assert torch.allclose(sums, plain_sums(model, given), rtol=1e-5)
    assert scorer.engine_for(model) == "logits"
    assert ("model's own logits" in caplog.text) == (engine == "auto")


@pytest.mark.parametrize(
    "family, config",
    [
        ("llama4_text", {**GROUPED, "num_local_experts": 2, "interleave_moe_layer_step": 1}),
        ("recurrent_gemma", {**GROUPED, "num_hidden_layers": 3, "lru_width": 32}),
    ],
)
def test_heads_under_other_names_are_found(family, config):
    model = make(family, **config)
    given = rows(14, 9)
    scorer = EntropyScorer()
    assert torch.allclose(scorer.score(model, **given).sums, plain_sums(model, given), rtol=1e-4)
    assert scorer.engine_for(model) == "chunked"


@pytest.mark.parametrize("quantity", ["entropy", "surprisal"])
def test_logits_of_minus_infinity_stay_in_the_engine(quantity):
    model = make("phi", **WIDE, num_key_value_heads=4)
    with torch.no_grad():
        model.lm_head.bias[150:] = -torch.inf
    given = rows(14, 9)
    scorers = [EntropyScorer(model, engine=engine, quantity=quantity) for engine in ("chunked", "logits")]
    weights = torch.tensor([0.7, -1.3])
    found = []
    for scorer in scorers:
        loss, sums = scorer.weighted(model, **given, row_weights=weights)
        model.zero_grad()
        loss.backward()
        found.append([sums.sums, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        scored = scorer.score(model, **given)
        assert torch.allclose(scored.sums, sums.sums) and scored.sums.isfinite().all()
    for ours, truth in zip(*found, strict=True):
        assert torch.allclose(ours, truth, rtol=1e-4, atol=1e-6)


# ---- training ------------------------------------------------------------------------------------------------


def reformer() -> Any:
    return make(
        "reformer", hidden_size=32, num_attention_heads=2, attention_head_size=16, feed_forward_size=48,
        attn_layers=["local", "local"], is_decoder=True, axial_pos_embds=False, max_position_embeddings=64,
        local_attn_chunk_length=16, hash_seed=0,
    )  # fmt: skip


class Cut(LlamaForCausalLM):
    """A fast way for evaluation that forgets the graph."""

    def forward(self, *args, **kwargs):
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            hidden = self.model(*args, **kwargs)[0]
        return CausalLMOutputWithPast(logits=self.lm_head(hidden))


@pytest.mark.parametrize(
    "model, why",
    [
        (reformer, "its backward pass fails"),
        (lambda: make("rwkv", hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, intermediate_size=48,
                      rescale_every=1, context_length=64), "changes its weights"),
        (lambda: Cut(LlamaConfig(**GROUPED, **ENDS, initializer_range=0.3)).eval(), "no gradient reaches its input"),
    ],
    ids=["reformer", "rwkv", "cut"],
)  # fmt: skip
def test_what_can_be_measured_but_not_trained_is_refused_in_a_line(model, why):
    made = model()
    given = rows(14, 9)
    with torch.no_grad():
        truth = plain_sums(made, given)
    scorer = EntropyScorer()
    with torch.no_grad():
        assert torch.allclose(scorer.score(made, **given).sums, truth, rtol=1e-4)
    with pytest.raises(
        InputError, match=f"cannot be trained in evaluation mode.*({why}).*measuring it works"
    ):
        scorer.refuse_untrainable(made)


def test_the_trial_of_training_leaves_no_gradient_and_no_hook():
    model = make("llama", **GROUPED)
    EntropyScorer().refuse_untrainable(model)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


# ---- rounding ------------------------------------------------------------------------------------------------


def test_ordinary_tokens_are_none_that_the_configuration_names():
    model = make("llama", **GROUPED, vocab_size=12, bos_token_id=4, eos_token_id=[5, 6], pad_token_id=7)
    assert set(ordinary_ids(model, 50).flatten().tolist()) == {3, 8}


def test_equal_infinities_are_equal():
    model = make("llama", **GROUPED)
    logits = torch.randn(3, 50)
    logits[:, 40:] = -torch.inf
    assert same_logits(model, logits, logits + 1.0)  # a shift changes no probability
    assert log_odds_error(logits, logits).max() < 1e-6
    other = logits.clone()
    other[1, 3] = -torch.inf
    assert not same_logits(model, logits, other) and not same_logits(model, other, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tolerance_is_that_of_the_dtype(dtype):
    model = make("llama", **GROUPED).to(dtype)
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(0)) * 3
    rounded = logits.to(torch.bfloat16 if dtype == torch.float16 else dtype).float()
    assert same_logits(model, logits, rounded)
    assert not same_logits(model, logits, logits + 1.0 * torch.randn(20, 500))
    if dtype == torch.float32:
        assert not same_logits(model, logits, logits + 0.02 * torch.randn(20, 500))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_still_pack_and_use_the_engine(dtype, caplog):
    model = make("llama", **GROUPED).to(dtype)
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        scorer = EntropyScorer(model)
    assert scorer.engine_for(model) == "chunked" and scorer.longest_row(model) == 512
    assert not caplog.records
