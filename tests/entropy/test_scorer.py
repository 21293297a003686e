"""The engine against the obvious reference: closed forms, gradients, tiny models, memory."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from isentropic.entropy.engine import Head
from isentropic.entropy.reference import token_entropy, token_surprisal
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import collate_examples
from isentropic.responses.response import Example

N, D, V = 23, 16, 203


# ---- the door, on tiny models ----------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": V}
ROTARY = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0, "eos_token_id": 0}
MODELS = {
    "llama": lambda **o: LlamaForCausalLM(LlamaConfig(**ROTARY, **o)),
    "llama tied": lambda **o: LlamaForCausalLM(LlamaConfig(**ROTARY, tie_word_embeddings=True, **o)),
    "gpt2": lambda **o: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=V, **o)),
    "qwen2": lambda **o: Qwen2ForCausalLM(Qwen2Config(**ROTARY, **o)),
    "gemma2": lambda **o: Gemma2ForCausalLM(
        Gemma2Config(**ROTARY, head_dim=8, final_logit_softcapping=0.5, attn_implementation="eager", **o)
    ),
    "granite": lambda **o: GraniteForCausalLM(GraniteConfig(**ROTARY, logits_scaling=0.2, **o)),
    "cohere": lambda **o: CohereForCausalLM(CohereConfig(**ROTARY, logit_scale=7.0, **o)),
}


def make_model(kind: str = "llama", dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[kind]().to(dtype).eval()
    with torch.no_grad():
        for p in model.parameters():  # fresh weights of 0.02 give distributions that are all but uniform
            p.mul_(5.0 if p.ndim > 1 else 1.0)
    return model


PROMPTS = [[5, 9, 17, 4], [8, 3], [7, 7, 7, 11, 12], [30]]
RESPONSES = [[20, 21, 22], [40], [50, 51, 0], []]


def make_batch(side: str = "right", pad: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = max(len(p) + len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True))
    ids, mask, predicts = [], [], []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        room = [pad] * (width - len(prompt) - len(response))
        scored = [0] * (len(prompt) - 1) + [1] * len(response) + [0]
        tokens, real = prompt + response, [1] * (len(prompt) + len(response))
        zeros = [0] * len(room)
        ids.append(room + tokens if side == "left" else tokens + room)
        mask.append(zeros + real if side == "left" else real + zeros)
        predicts.append(zeros + scored if side == "left" else scored + zeros)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(predicts).bool()


def naive_sums(model: nn.Module, quantity: str = "entropy") -> torch.Tensor:
    """Row by row, without any padding, from the model's own logits."""
    sums = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        if quantity == "entropy":
            sums.append(token_entropy(logits).sum())
        else:
            sums.append(token_surprisal(logits, torch.tensor(response, dtype=torch.long)).sum())
    return torch.stack(sums)


def grads_of(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_grads(
    ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor], rtol: float = 1e-9
) -> None:
    assert ours.keys() == truth.keys()
    for name, true in truth.items():
        assert (ours[name] - true).norm() <= rtol * true.norm() + 1e-12, name


WEIGHTS = torch.tensor([0.7, -1.3, 0.4, 0.0], dtype=torch.float64)
LENGTHS = torch.tensor([len(r) for r in RESPONSES])


@pytest.mark.parametrize("quantity", ["entropy", "surprisal"])
@pytest.mark.parametrize("engine", ["chunked", "logits"])
@pytest.mark.parametrize("kind", MODELS)
def test_score_and_weighted_are_the_naive_ones(kind, engine, quantity):
    model = make_model(kind)
    scorer = EntropyScorer(model, engine=engine, chunk_bytes=2 * 4 * V * 8, quantity=quantity)
    truth = naive_sums(model, quantity)
    rtol = 1e-5 if kind in ("gemma2", "cohere") else 1e-9  # these use float32 inside, whatever their weights
    assert truth[:3].std() > 1e-3  # something to tell apart
    counts = LENGTHS if quantity == "entropy" else LENGTHS.clamp(max=1)  # a mean, a sum
    scored = scorer.score(model, *make_batch())
    assert scored.counts.tolist() == counts.tolist()
    assert torch.allclose(scored.sums, truth, rtol=rtol)
    assert scored.sums[3].item() == 0.0

    expected = grads_of(model, (WEIGHTS * truth / counts.clamp(min=1)).sum())
    assert_same_grads(
        grads_of(model, (WEIGHTS * scored.sums / scored.counts.clamp(min=1)).sum()), expected, rtol
    )
    loss, detached = scorer.weighted(model, *make_batch(), WEIGHTS)
    assert torch.equal(detached.sums, scored.sums.detach()) and not detached.sums.requires_grad
    assert loss.item() == pytest.approx((WEIGHTS * truth / counts.clamp(min=1)).sum().item(), rel=10 * rtol)
    assert_same_grads(grads_of(model, loss), expected, rtol)


@pytest.mark.parametrize("kind", MODELS)
def test_auto_takes_the_engine_for_heads_it_knows(kind, caplog):
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        for dtype in (torch.float32, torch.bfloat16):
            model = make_model(kind, dtype)
            assert EntropyScorer(model).engine_for(model) == "chunked"
    assert not caplog.records


@pytest.mark.parametrize("engine", ["chunked", "logits"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_padding_side_and_pad_token_change_nothing(kind, engine):
    # Gemma-2's eager mask makes nan of float64 rows that see nothing, such as padding on the left.
    model = make_model(kind, torch.float32 if kind == "gemma2" else torch.float64)
    rtol = 1e-5 if kind == "gemma2" else 1e-10
    scorer = EntropyScorer(model, engine=engine)
    right = scorer.score(model, *make_batch("right")).sums
    for batch in (make_batch("left"), make_batch("left", pad=99), make_batch("right", pad=99)):
        assert torch.allclose(scorer.score(model, *batch).sums, right, rtol=rtol)


@pytest.mark.parametrize("engine", ["chunked", "logits"])
def test_batch_without_any_response_stays_in_the_graph(engine):
    model = make_model()
    ids, mask, _ = make_batch()
    nothing = torch.zeros_like(mask).bool()
    scorer = EntropyScorer(engine=engine)
    scored = scorer.score(model, ids, mask, nothing)
    assert scored.sums.tolist() == [0.0] * 4 and scored.counts.tolist() == [0] * 4
    loss, _ = scorer.weighted(model, ids, mask, nothing, torch.zeros(4))
    for result in (scored.sums.sum(), loss):
        grads = grads_of(model, result)
        assert "lm_head.weight" in grads and "model.layers.0.self_attn.q_proj.weight" in grads
        assert not any(grad.any() for grad in grads.values())


def test_no_gradient_is_formed_without_grad():
    model = make_model()
    with torch.no_grad():
        scored = EntropyScorer().score(model, *make_batch())
        loss, _ = EntropyScorer().weighted(model, *make_batch(), WEIGHTS)
    assert not scored.sums.requires_grad and not loss.requires_grad


def test_gradient_checkpointing_changes_nothing():
    model = make_model()
    scorer = EntropyScorer(model)
    model.train()
    plain = grads_of(model, scorer.weighted(model, *make_batch(), WEIGHTS)[0])
    model.gradient_checkpointing_enable()
    assert_same_grads(grads_of(model, scorer.weighted(model, *make_batch(), WEIGHTS)[0]), plain)


@pytest.mark.parametrize("where", ["body", "head"])
def test_lora_on_body_and_head(where):
    peft = pytest.importorskip("peft")
    base = make_model()
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj"] + ["lm_head"] * (where == "head"), init_lora_weights=False
    )
    model = peft.get_peft_model(base, config).double().eval()
    scorer = EntropyScorer(model)
    assert scorer.engine_for(model) == "chunked"
    truth = naive_sums(model)
    expected = grads_of(model, (WEIGHTS * truth / LENGTHS.clamp(min=1)).sum())
    assert any("lora" in name for name in expected) and not any("embed" in name for name in expected)
    scored = scorer.score(model, *make_batch())
    assert torch.allclose(scored.sums, truth, rtol=1e-9)
    assert_same_grads(grads_of(model, (WEIGHTS * scored.sums / scored.counts.clamp(min=1)).sum()), expected)
    assert_same_grads(grads_of(model, scorer.weighted(model, *make_batch(), WEIGHTS)[0]), expected)


class Odd(LlamaForCausalLM):
    """A head no configuration tells of."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 0.5 + 0.1 * output.logits**2
        return output


def test_unusual_head_falls_back_says_so_once_and_is_right(caplog):
    torch.manual_seed(0)
    model = Odd(LlamaConfig(**ROTARY)).double().eval()
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        scorers = [EntropyScorer(model, chunk_bytes=1), EntropyScorer()]
        scores = [scorer.score(model, *make_batch()).sums for scorer in scorers]
    assert [r.getMessage().split(";")[0] for r in caplog.records] == [
        "Odd: its logits are not those of its head"
    ]
    assert scorers[0].engine_for(model) == "logits"
    for sums in scores:
        assert torch.allclose(sums, naive_sums(model), rtol=1e-9)
    with pytest.raises(InputError, match="engine 'auto'"):
        EntropyScorer(model, engine="chunked")


class NoKeep(LlamaForCausalLM):
    """A forward that always makes all logits."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=None):
        return super().forward(input_ids, attention_mask, position_ids, use_cache=use_cache)


def test_model_without_logits_to_keep(caplog):
    torch.manual_seed(0)
    model = NoKeep(LlamaConfig(**ROTARY)).double().eval()
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        sums = EntropyScorer(model).score(model, *make_batch("left")).sums
    assert "logits_to_keep" in caplog.text
    assert torch.allclose(sums, naive_sums(model), rtol=1e-9)


def test_soft_cap_that_the_config_hides_is_noticed_at_small_logits():
    """On the model's own small logits a cap of 30 is within rounding; the comparison must still see it."""
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**ROTARY, head_dim=8, final_logit_softcapping=30.0)).eval()
    assert EntropyScorer(model).engine_for(model) == "chunked"
    hidden_cap = Gemma2ForCausalLM(Gemma2Config(**ROTARY, head_dim=8, final_logit_softcapping=30.0)).eval()
    forward = hidden_cap.forward
    assert Head.of(hidden_cap).softcap == 30.0
    hidden_cap.config = _without_cap(hidden_cap.config)
    hidden_cap.forward = lambda *a, logits_to_keep=0, position_ids=None, **k: _capped(
        forward(*a, logits_to_keep=logits_to_keep, position_ids=position_ids, **k)
    )
    assert Head.of(hidden_cap).softcap is None
    assert EntropyScorer(hidden_cap).engine_for(hidden_cap) == "logits"


def _without_cap(config):
    config.final_logit_softcapping = None
    return config


def _capped(output):
    output.logits = 30.0 * torch.tanh(output.logits / 30.0)
    return output


def test_comparison_leaves_the_model_as_it_was():
    model = make_model().train()
    model.model.layers[0].eval()
    modes = [part.training for part in model.modules()]
    EntropyScorer(model)
    assert [part.training for part in model.modules()] == modes
    assert not model.model._forward_hooks


@pytest.mark.parametrize("amp", [False, True])
def test_autocast_inside_the_wrapped_forward_reaches_the_head(amp):
    """Accelerate enters autocast inside `forward` only; the head is to run in the same precision."""
    model = make_model(dtype=torch.float32)
    ids, mask, predicts = make_batch()
    plain = model.forward
    if amp:

        def forward(input_ids=None, attention_mask=None, position_ids=None, use_cache=None, logits_to_keep=0):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return plain(input_ids, attention_mask, position_ids, use_cache=use_cache,
                             logits_to_keep=logits_to_keep)  # fmt: skip

        model.forward = forward
    ours = EntropyScorer(model).score(model, ids, mask, predicts).sums
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, naive_sums(model), rtol=2e-2 if amp else 1e-5, atol=1e-5)


@pytest.mark.parametrize("compiled_before", [False, True])
@pytest.mark.slow
def test_torch_compile_is_right(compiled_before, caplog):
    """A graph compiled before the engine looked in hides the hidden states: that too must end in right numbers."""
    torch.compiler.reset()
    model = make_model(dtype=torch.float32)
    truth = naive_sums(model)
    compiled = torch.compile(model, backend="eager")
    ids, _, _ = make_batch()
    if compiled_before:
        compiled(input_ids=ids, use_cache=False, logits_to_keep=1)
    scorer = EntropyScorer()
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        for side in ("right", "right", "left"):
            scored = scorer.score(compiled, *make_batch(side))
            assert torch.allclose(scored.sums, truth, rtol=1e-5, atol=1e-6)
    fell_back = scorer.engine_for(compiled) == "logits"  # some versions of torch still show the hidden states
    assert fell_back == ("compiled graph" in caplog.text) and (compiled_before or not fell_back)


@pytest.fixture
def one_process(tmp_path):
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("find_unused", [False, True])
@pytest.mark.parametrize("engine", ["chunked", "logits"])
def test_ddp_sees_every_gradient(one_process, engine, find_unused):
    """The head runs outside the wrapper's forward; its gradient must still be counted, step after step."""
    model = make_model("llama tied")
    scorer = EntropyScorer(engine=engine)
    expected = grads_of(model, scorer.weighted(model, *make_batch(), WEIGHTS)[0])
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=find_unused)
    for _ in range(2):
        assert_same_grads(grads_of(model, scorer.weighted(wrapped, *make_batch(), WEIGHTS)[0]), expected)
        scored = scorer.score(wrapped, *make_batch())
        loss = (WEIGHTS * scored.sums / scored.counts.clamp(min=1)).sum()
        assert_same_grads(grads_of(model, loss), expected)


# ---- packed rows -----------------------------------------------------------------------------------------------

MAN = Prompt("", "male")
EXAMPLES = [
    Example(MAN, prompt, response, "male")
    for prompt, responses in {
        (5, 9, 17, 4): [(20, 21, 22), (40,), (50, 51, 0, 0)],
        (8,): [(3, 0), (60, 61, 62)],  # nothing to share but the token that predicts
        (7, 7, 7, 11, 12): [(1,)],
    }.items()
    for response in responses
]
PACKED, ALONE = collate_examples(EXAMPLES, 0, longest=512), collate_examples(EXAMPLES, 0)
SIX = torch.tensor([0.7, -1.3, 0.4, 0.0, 2.0, -0.6], dtype=torch.float64)


def assert_packed_is_alone(model: nn.Module, scorer: EntropyScorer, rtol: float = 1e-7) -> None:
    """Values and gradients of `score` and `weighted`, packed and in rows of their own.

    Llama and its kin norm in float32, whatever their weights: a last bit of float64 may be one of float32 there.
    """
    assert len(PACKED["input_ids"]) == 3 and scorer.longest_row(model) > 0
    truth, packed = scorer.score(model, **ALONE), scorer.score(model, **PACKED)
    assert torch.equal(packed.counts, truth.counts) and truth.means().std() > 1e-3
    assert torch.allclose(packed.sums, truth.sums, rtol=rtol)
    expected = grads_of(model, (SIX * truth.means()).sum())
    assert_same_grads(grads_of(model, (SIX * packed.means()).sum()), expected, 10 * rtol)
    loss, detached = scorer.weighted(model, **PACKED, row_weights=SIX)
    assert torch.equal(detached.sums, packed.sums.detach())
    assert_same_grads(grads_of(model, loss), expected, 10 * rtol)


@pytest.mark.parametrize("quantity", ["entropy", "surprisal"])
@pytest.mark.parametrize("engine", ["chunked", "logits"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_a_packed_row_is_its_responses_alone(kind, attention, engine, quantity):
    model = make_model(kind)
    model.set_attn_implementation(attention)
    scorer = EntropyScorer(model, engine=engine, quantity=quantity)
    assert_packed_is_alone(model, scorer, rtol=1e-11 if kind == "gpt2" else 1e-7)


def test_packed_rows_with_gradient_checkpointing():
    model = make_model().train()
    model.gradient_checkpointing_enable()
    assert_packed_is_alone(model, EntropyScorer(model))


def test_packed_rows_through_an_adapter():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model = peft.get_peft_model(make_model(), config).double().eval()
    assert_packed_is_alone(model, EntropyScorer(model))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_packed_rows_under_bfloat16_autocast(kind, attention):
    model = make_model(kind, torch.float32)
    model.set_attn_implementation(attention)
    scorer = EntropyScorer(model)
    truth = scorer.score(model, **ALONE).sums
    with torch.autocast("cpu", dtype=torch.bfloat16):
        alone, packed = (scorer.score(model, **batch).sums for batch in (ALONE, PACKED))
    # No worse than rows of their own in that precision, both against float32.
    assert (packed - truth).abs().max() <= 2 * (alone - truth).abs().max() + 1e-3


class Deaf(LlamaForCausalLM):
    """Counts positions by itself, whatever it is told."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        return super().forward(input_ids, attention_mask, None, **kwargs)


class Picky(LlamaForCausalLM):
    """Knows a mask of padding alone."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        if attention_mask is not None:
            rows, width = attention_mask.shape
        return super().forward(input_ids, attention_mask, position_ids, **kwargs)


def make_unfit(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "alibi":
        return BloomForCausalLM(BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=4)).eval()
    if kind == "state space":
        return Lfm2ForCausalLM(Lfm2Config(**ROTARY, layer_types=["conv", "full_attention"])).eval()
    if kind == "kernel":
        AttentionInterface.register("of_our_own", eager_attention_forward)
        AttentionMaskInterface.register("of_our_own", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
        model = make_model(dtype=torch.float32)
        model.config._attn_implementation = "of_our_own"
        return model
    made = {"deaf": Deaf, "picky": Picky}[kind](LlamaConfig(**ROTARY, initializer_range=0.2))
    return made.eval()


def assert_taken_apart(model: nn.Module, scorer: EntropyScorer) -> None:
    """Packed rows, given all the same, come out as rows of their own; so do their gradients."""
    truth, packed = scorer.score(model, **ALONE), scorer.score(model, **PACKED)
    assert torch.equal(packed.counts, truth.counts)
    assert torch.allclose(packed.sums, truth.sums, rtol=1e-5, atol=1e-5)
    expected = grads_of(model, (SIX * truth.means()).sum())
    loss, _ = scorer.weighted(model, **PACKED, row_weights=SIX.to(truth.sums.dtype))
    assert_same_grads(grads_of(model, loss), expected, 1e-4)


@pytest.mark.parametrize(
    "kind, why",
    [
        ("alibi", "takes no position_ids"),
        ("state space", "does not accept|other entropies"),
        ("kernel", "of_our_own"),
        ("deaf", "other entropies"),
        ("picky", "does not accept a 4-D attention mask .ValueError"),
    ],
)
def test_models_that_cannot_pack_are_named_once(kind, why, caplog):
    model = make_unfit(kind)
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        scorers = [EntropyScorer(engine="logits"), EntropyScorer(engine="logits")]
        assert [scorer.longest_row(model) for scorer in scorers] == [0, 0]
    (record,) = (record for record in caplog.records if record.name == "isentropic")
    assert re.search(why, record.getMessage()) and "row of its own" in record.getMessage()
    assert_taken_apart(model, scorers[0])


def test_rows_are_no_longer_than_windows_and_positions_reach():
    config = dict(ROTARY, max_position_embeddings=4096)
    assert EntropyScorer().longest_row(LlamaForCausalLM(LlamaConfig(**config))) == 512
    assert EntropyScorer().longest_row(MistralForCausalLM(MistralConfig(**config, sliding_window=40))) == 40
    assert EntropyScorer().longest_row(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=99))) == 99  # fmt: skip


def test_packed_rows_with_a_window_are_right_up_to_it():
    model = MistralForCausalLM(MistralConfig(**ROTARY, sliding_window=16, initializer_range=0.2)).double()
    assert PACKED["input_ids"].shape[1] <= 16
    assert_packed_is_alone(model.eval(), EntropyScorer(model))


class DeafWhenLong(Deaf):
    """Takes positions as they are given, but not in rows of more than 20 tokens."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        kind = Deaf if input_ids.shape[1] > 20 else LlamaForCausalLM
        return kind.forward(self, input_ids, attention_mask, position_ids, **kwargs)


def test_a_packed_row_longer_than_all_before_is_tried_again(caplog):
    torch.manual_seed(0)
    model = DeafWhenLong(LlamaConfig(**ROTARY, initializer_range=0.2)).eval()
    scorer = EntropyScorer(model)
    assert scorer.longest_row(model) == 512
    assert_taken_apart(model, scorer)  # up to 15 tokens: packed
    assert scorer.longest_row(model) == 512
    prompt = tuple(range(5, 22))
    examples = [Example(MAN, prompt, response, "male") for response in [(30, 31), (40, 41, 42), (50,)]]
    packed, alone = collate_examples(examples, 0, longest=512), collate_examples(examples, 0)
    with caplog.at_level(logging.WARNING, logger="isentropic"):
        sums = scorer.score(model, **packed).sums
    assert torch.allclose(sums, scorer.score(model, **alone).sums, rtol=1e-6)
    assert scorer.longest_row(model) == 0 and caplog.text.count("in a row of 25 tokens") == 1


def test_rows_whose_length_decides_are_scored_beside_rows_as_long(caplog):
    """Phi-3's long factors are those of every row beside one that is longer than the original context."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0, 5.0, 9.0, 14.0]}
    config = Phi3Config(
        **ROTARY,
        initializer_range=0.3,
        max_position_embeddings=64,
        original_max_position_embeddings=16,
        rope_parameters={**rope, "original_max_position_embeddings": 16, "rope_theta": 10000.0},
    )
    torch.manual_seed(0)
    model = Phi3ForCausalLM(config).eval()
    scorer = EntropyScorer(model)
    prompts = [tuple(range(5, 5 + n)) for n in (6, 20, 9)]
    examples = [
        Example(MAN, prompt, response, "male") for prompt in prompts for response in [(40, 41), (42,)]
    ]
    truth = [
        token_entropy(
            model(torch.tensor([e.prompt_ids + e.response_ids])).logits[0, len(e.prompt_ids) - 1 : -1]
        ).sum()
        for e in examples
    ]
    for longest in (0, 512):
        with caplog.at_level(logging.WARNING, logger="isentropic"):
            sums = scorer.score(model, **collate_examples(examples, 0, longest=longest)).sums
        assert torch.allclose(sums, torch.stack(truth), rtol=1e-5)
    assert "depend on the length of the row" in caplog.text


# ---- bad input -------------------------------------------------------------------------------------------------


def test_bad_input_has_one_clear_line():
    model = make_model(dtype=torch.float32)
    ids, mask, predicts = make_batch()
    scorer = EntropyScorer(model)
    with pytest.raises(InputError, match="no such engine"):
        EntropyScorer(engine="fast")
    with pytest.raises(InputError, match="no such quantity"):
        EntropyScorer(quantity="perplexity")
    with pytest.raises(InputError, match="tensors of the same shape"):
        scorer.score(model, ids, mask[:, 1:], predicts)
    last = predicts.clone()
    last[1, -1] = True
    with pytest.raises(InputError, match="no token follows"):
        scorer.score(model, ids, mask, last)
    with pytest.raises(InputError, match=r"rows \[3\] of 4 have no response token"):
        scorer.weighted(model, ids, mask, predicts, torch.ones(4))
    with pytest.raises(InputError, match="where owners is -1"):
        scorer.score(model, ids, mask, predicts, torch.full_like(ids, -1))
