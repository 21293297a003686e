"""Sampling against the model's own distribution and against a slow loop; the cache; shared responses; prompts."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from isentropic.files import cache_folder
from isentropic.models.identity import model_sha256
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import token_batches
from isentropic.responses.cache import kept_file
from isentropic.responses.response import Sampling
from isentropic.responses.sample import (
    ResponseSampler,
    own_examples,
    sample_responses,
    shared_examples,
    uniform_numbers,
    until_end,
)

PROMPTS = ((270, 271, 40), (260, 41), (300, 9, 12, 77, 31, 8), (270, 272, 40), (5, 0, 7), (90,))
ENDS = (0, *range(200, 230))  # many end tokens, so that responses end early and at different lengths
KINDS = ["llama", "gpt2", "qwen2"]


def assert_follows(model, prompt, response, sample, sampling, ends) -> None:
    """The definition, without padding, cache or generate: each token is the one its uniform number falls on."""
    uniforms = uniform_numbers(prompt, sample, sampling)
    for position, token in enumerate(response):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *response[:position]]])).logits[0, -1].double()
        if sampling.sample_temp == 0:
            assert logits[token] >= logits.max() - 1e-4
        else:
            p = torch.softmax(logits / sampling.sample_temp, -1)
            low = p[:token].sum()
            assert low - 1e-5 <= uniforms[position] <= low + p[token] + 1e-5
    assert not set(response[:-1]) & set(ends)
    assert response[-1] in ends or len(response) == sampling.max_new_tokens


def assert_drawn_from(counts: Counter, p: np.ndarray) -> None:
    """Chi-square at 1e-4, the seed being fixed; rare tokens are put together."""
    n = sum(counts.values())
    common = [token for token in range(len(p)) if n * p[token] >= 8]
    seen = [counts[token] for token in common]
    expected = [n * p[token] for token in common]
    if n - sum(expected) >= 8:
        seen.append(n - sum(seen))
        expected.append(n - sum(expected))
    assert len(seen) > 3
    scale = sum(seen) / sum(expected)
    assert chisquare(seen, np.array(expected) * scale).pvalue > 1e-4


# --- The distribution -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_tokens_follow_the_models_softmax(tiny_model, temperature):
    model = tiny_model()
    sampling = Sampling(max_new_tokens=1, num_responses=4000, sample_temp=temperature)
    (drawn,) = sample_responses(model, PROMPTS[:1], sampling, ends=(0,))
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    assert_drawn_from(Counter(ids[0] for ids in drawn), torch.softmax(logits / temperature, -1).numpy())


def test_second_tokens_follow_the_distribution_given_the_first(tiny_model):
    model = tiny_model()
    (drawn,) = sample_responses(model, PROMPTS[:1], Sampling(max_new_tokens=2, num_responses=6000), ends=(0,))
    first = Counter(ids[0] for ids in drawn if len(ids) == 2).most_common(1)[0][0]
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([[*PROMPTS[0], first]])).logits[0, -1].double(), -1).numpy()
    assert_drawn_from(Counter(ids[1] for ids in drawn if len(ids) == 2 and ids[0] == first), p)


# --- Against the slow loop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_batched_with_left_padding_is_one_by_one_without(tiny_model, kind, temperature):
    model = tiny_model(kind)
    sampling = Sampling(max_new_tokens=7, num_responses=2, sample_temp=temperature, seed=3)
    drawn = sample_responses(model, PROMPTS, sampling, ends=ENDS)
    for ids, pair in zip(PROMPTS, drawn, strict=True):
        for sample, response in enumerate(pair):
            assert_follows(model, ids, response, sample, sampling, ENDS)
    if temperature == 1.0:
        assert len({len(ids) for pair in drawn for ids in pair}) > 2  # they do end at different lengths


def test_greedy_is_the_same_for_every_seed_and_sampling_is_not(tiny_model):
    model = tiny_model()
    greedy, sampled = (
        [
            sample_responses(model, PROMPTS, Sampling(sample_temp=temperature, seed=seed), ends=(0,))
            for seed in (0, 1)
        ]
        for temperature in (0.0, 1.0)
    )
    assert greedy[0] == greedy[1]
    assert sampled[0] != sampled[1]


def test_same_seed_same_responses_whatever_else_is_in_the_batch(tiny_model):
    model, sampling = tiny_model(), Sampling(seed=5)
    together = sample_responses(model, PROMPTS, sampling, ends=(0,))
    backwards = sample_responses(model, PROMPTS[::-1], sampling, ends=(0,))
    alone = [sample_responses(model, [ids], sampling, ends=(0,))[0] for ids in PROMPTS]
    assert together == backwards[::-1] == alone
    more = sample_responses(model, PROMPTS, dataclasses.replace(sampling, num_responses=3), ends=(0,))
    assert [drawn[0] for drawn in more] == [drawn[0] for drawn in together]
    assert all(len(set(drawn)) > 1 for drawn in more)


def odd_model(kind):
    """Models that see the padding: one whose state also mixes the rows of a batch, and one whose positions count it."""
    from transformers import AutoModelForCausalLM, BartConfig, RwkvConfig

    torch.manual_seed(0)
    if kind == "rwkv":
        config = RwkvConfig(
            vocab_size=320, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, context_length=64
        )
    else:
        decoder = {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64}
        alone = {"is_decoder": True, "is_encoder_decoder": False}
        config = BartConfig(vocab_size=320, d_model=32, max_position_embeddings=64, **decoder, **alone)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, 0, 0
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2 and min(parameter.shape) > 1:
                parameter.normal_(std=0.5)
    return model


@pytest.mark.parametrize("kind", ["rwkv", "bart"])
def test_a_model_that_looks_past_the_padding_gives_what_it_gives_alone(kind, caplog):
    model, sampling = odd_model(kind), Sampling(max_new_tokens=4, num_responses=3)
    together = sample_responses(model, PROMPTS, sampling, ends=(0,))
    assert caplog.text.count("differently next to prompts of other lengths") == 1
    for ids, drawn in zip(PROMPTS, together, strict=True):
        assert sample_responses(model, [ids], sampling, ends=(0,)) == [drawn]
        for sample, response in enumerate(drawn):
            assert_follows(model, ids, response, sample, sampling, (0,))
    assert caplog.text.count("differently next to prompts of other lengths") == 1


@pytest.mark.parametrize("kind", ["rwkv", "bart"])
def test_what_looks_past_the_padding_does_so_in_bfloat16_too(kind):
    model, sampling = odd_model(kind).to(torch.bfloat16), Sampling(max_new_tokens=4)
    found = sample_responses(model, PROMPTS, sampling, ends=(0,))
    assert found == [sample_responses(model, [ids], sampling, ends=(0,))[0] for ids in PROMPTS]


@pytest.mark.parametrize(("layers", "seed"), [(2, 1), (12, 0)])
def test_rounding_is_not_taken_for_looking_past_the_padding(layers, seed, caplog):
    """Small random logits that bfloat16 rounds by more than a fiftieth of the largest, more so in many layers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=3000, hidden_size=64, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    sample_responses(model, PROMPTS, Sampling(), ends=(0,))
    assert not caplog.text


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert", "data2vec-text"])
@pytest.mark.slow
def test_a_model_whose_positions_do_not_begin_at_0_gives_its_own_responses(family):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, is_decoder=True, bos_token_id=0, eos_token_id=0, pad_token_id=2,
    )  # fmt: skip
    model, sampling = (
        AutoModelForCausalLM.from_config(config).eval(),
        Sampling(max_new_tokens=6, num_responses=3),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.5)
    for _ in range(2):
        for ids, drawn in zip(PROMPTS, sample_responses(model, PROMPTS, sampling, ends=(0,)), strict=True):
            for sample, response in enumerate(drawn):
                assert_follows(model, ids, response, sample, sampling, (0,))
    assert "prepare_inputs_for_generation" not in vars(model)

    for task in (None, "CAUSAL_LM"):
        adapted = get_peft_model(
            copy.deepcopy(model), LoraConfig(r=2, target_modules=["query"], task_type=task)
        )
        assert sample_responses(adapted, PROMPTS, sampling, ends=(0,)) == sample_responses(
            model, PROMPTS, sampling, ends=(0,)
        )


def test_a_model_that_honours_the_mask_is_sampled_in_padded_batches(tiny_model, caplog, monkeypatch):
    for kind in KINDS:
        model, widths = tiny_model(kind), []
        generate = model.generate
        monkeypatch.setattr(
            model, "generate", lambda g=generate, w=widths, **k: w.append(k["input_ids"].shape) or g(**k)
        )
        for _ in range(2):
            sample_responses(model, PROMPTS, Sampling(), ends=(0,))
        assert widths == [(1, 6), (1, 1), (2, 6), (6, 6), (6, 6)]  # the trials once, then all prompts at once
    assert not caplog.text


def test_equal_prompts_get_equal_responses(tiny_model):
    drawn = sample_responses(tiny_model(), [PROMPTS[0], PROMPTS[1], PROMPTS[0]], Sampling(), ends=(0,))
    assert drawn[0] == drawn[2] != drawn[1]


# --- The end --------------------------------------------------------------------------------------------------------


def test_responses_end_with_the_first_end_token(tiny_model):
    drawn = sample_responses(tiny_model(), PROMPTS, Sampling(max_new_tokens=20, num_responses=30), ends=ENDS)
    flat = [ids for each in drawn for ids in each]
    for ids in flat:
        assert not set(ids[:-1]) & set(ENDS)
        assert ids[-1] in ENDS or len(ids) == 20
    assert len({ids[-1] for ids in flat if len(ids) < 20}) > 5  # several end tokens do end responses
    assert any(len(ids) == 1 for ids in flat)  # a response that is only the end token


def test_until_end():
    assert until_end([5, 2, 7, 3], (3, 2)) == (5, 2)
    assert until_end([2, 2], (2,)) == (2,)
    assert until_end([5, 6], (2,)) == (5, 6)


def test_pad_equal_to_end_changes_nothing(tiny_model, tiny_tokenizer, padless_tokenizer, tiny_prompts):
    twins = tiny_prompts.split("test").tuples()
    found = [
        ResponseSampler(tiny_model(), tokenizer, Sampling()).examples(twins, shared=True)
        for tokenizer in (tiny_tokenizer, padless_tokenizer)
    ]
    assert found[0] == found[1]


# --- The model is left as it was ------------------------------------------------------------------------------------


def test_the_models_own_generation_settings_are_kept_out_and_kept(tiny_model):
    plain, odd = tiny_model(), tiny_model()
    strange = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "temperature": 0.1, "top_k": 1}
    odd.generation_config.update(**strange, do_sample=True, min_new_tokens=3)
    own = odd.generation_config
    expected = sample_responses(plain, PROMPTS, Sampling(num_responses=5), ends=ENDS)
    assert sample_responses(odd, PROMPTS, Sampling(num_responses=5), ends=ENDS) == expected
    assert odd.generation_config is own and own.repetition_penalty == 5.0


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored_even_after_an_error(tiny_model, training):
    model = tiny_model().train(training)
    own = model.generation_config
    sample_responses(model, PROMPTS, Sampling(), ends=(0,))
    assert model.training is training
    with pytest.raises(IndexError):
        sample_responses(model, [(100_000,)], Sampling(), ends=(0,))
    assert model.training is training and model.generation_config is own


def test_dropout_is_off_while_sampling(tiny_model):
    model = tiny_model("gpt2").train()
    assert model.config.resid_pdrop > 0
    first, second = (sample_responses(model, PROMPTS, Sampling(), ends=(0,)) for _ in range(2))
    assert first == second


def test_progress_is_told_up_to_the_total(tiny_model):
    told = []
    sample_responses(
        tiny_model(),
        PROMPTS,
        Sampling(num_responses=200),
        ends=(0,),
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(told) > 1 and told[-1] == (1200, 1200)
    assert told == sorted(told)


def test_token_batches_keep_all_in_order_and_within_the_budget():
    items = list(range(1, 40))
    batches = list(token_batches(items, lambda n: n, budget=60))
    assert [n for batch in batches for n in batch] == items
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 60 for batch in batches)
    assert list(token_batches([], len)) == []


# --- The cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(tiny_loaded, monkeypatch, tmp_path):
    """The tiny model with the batches it answers counted, and a cache folder of its own."""
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path))
    calls = []
    generate = tiny_loaded.model.generate

    def counting(**given):
        if not given["generation_config"].output_logits:  # that is the trial of what may share a batch
            calls.append(1)
        return generate(**given)

    monkeypatch.setattr(tiny_loaded.model, "generate", counting)
    return tiny_loaded, calls


def test_the_second_call_comes_from_the_cache(counted):
    loaded, calls = counted
    first, second = (
        ResponseSampler(loaded.model, loaded.tokenizer, Sampling(), model_sha256=loaded.sha256).responses(
            PROMPTS
        )
        for _ in range(2)
    )
    assert first == second and len(calls) == 1
    assert [path.suffix for path in (cache_folder() / "responses").iterdir()] == [".json"]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"sample_temp": 0.9}, {"max_new_tokens": 5}, {"num_responses": 2}]
)
def test_other_settings_miss_the_cache(counted, change):
    loaded, calls = counted
    for sampling in (Sampling(), Sampling(**change)):
        ResponseSampler(loaded.model, loaded.tokenizer, sampling, model_sha256=loaded.sha256).responses(
            PROMPTS
        )
    assert len(calls) == 2


def test_other_weights_prompts_and_end_tokens_miss_the_cache(counted):
    loaded, calls = counted

    def sample(prompts=PROMPTS):
        sha256 = model_sha256(loaded.model)
        return ResponseSampler(loaded.model, loaded.tokenizer, Sampling(), model_sha256=sha256).responses(
            prompts
        )

    before = sample()
    sample(PROMPTS[:2])
    with torch.no_grad():
        loaded.model.lm_head.weight[:150] += 3
    assert sample() != before
    loaded.model.generation_config.eos_token_id = [7, 9]
    sample()
    assert len(calls) == 4
    sample()
    assert len(calls) == 4


def test_no_hash_no_cache(counted):
    loaded, calls = counted
    for _ in range(2):
        ResponseSampler(loaded.model, loaded.tokenizer, Sampling()).responses(PROMPTS)
    assert len(calls) == 2 and not (cache_folder() / "responses").exists()


def test_another_configuration_of_the_same_weights_misses_the_cache(counted):
    """The rope's base, a window, a soft cap: the weights are the same and every answer may differ."""
    loaded, calls = counted

    def sample():
        sha256 = model_sha256(loaded.model)
        return ResponseSampler(loaded.model, loaded.tokenizer, Sampling(), model_sha256=sha256).responses(
            PROMPTS
        )

    sample()
    loaded.model.config.rope_parameters = {"rope_type": "default", "rope_theta": 3.0}
    sample()
    assert len(calls) == 2
    loaded.model.set_attn_implementation("sdpa")
    sample()
    assert len(calls) == 3
    loaded.model.config.use_cache = not loaded.model.config.use_cache  # changes no logit
    sample()
    assert len(calls) == 3


def test_what_changes_a_logit_changes_the_hash_and_nothing_else_does(tiny_model):
    from peft import LoraConfig, get_peft_model

    def adapted(alpha):
        torch.manual_seed(0)
        config = LoraConfig(r=2, lora_alpha=alpha, target_modules=["q_proj"], init_lora_weights=False)
        return model_sha256(get_peft_model(tiny_model(), config))

    assert adapted(4) == adapted(4) != adapted(8)  # the factor of an adapter is no weight
    model = tiny_model()
    model.register_buffer("logits_bias", torch.zeros(3))
    before = model_sha256(model)
    model.register_buffer("scratch", torch.ones(3), persistent=False)
    assert model_sha256(model) == before
    model.logits_bias += 1
    assert model_sha256(model) != before


def damaged(text: str, how: str) -> str:
    content = json.loads(text)
    first = content["responses"][0][0]
    if how == "digit":
        first[0] += 1
    elif how == "text":
        first[0] = str(first[0])
    elif how == "float":
        first[0] = float(first[0])
    elif how == "true":
        first[0] = True
    elif how == "out of vocabulary":
        first[0] = 9999
    elif how == "negative":
        first[0] = -1
    elif how == "longer":
        first += [5] * 500
    elif how == "swapped":
        content["responses"].reverse()
    elif how == "no hash":
        del content["sha256"]
    return json.dumps(content)


NAMED = ["digit", "text", "float", "true", "out of vocabulary", "negative", "longer", "swapped", "no hash"]


@pytest.mark.parametrize(
    "how",
    [
        *NAMED,
        pytest.param("", id="empty"),
        "[[[1, 2",
        "null",
        "7",
        '{"a": 1}',
        '{"sha256": 1e400, "responses": 1}',
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"responses": [[[%s]]]}' % ("9" * 5000), id="huge"),
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_damaged_cache_file_is_sampled_again(counted, how):
    loaded, calls = counted
    sampler = ResponseSampler(loaded.model, loaded.tokenizer, Sampling(), model_sha256=loaded.sha256)
    expected = sampler.responses(PROMPTS)
    (file,) = (cache_folder() / "responses").iterdir()
    whole = file.read_text()
    file.write_text(damaged(whole, how) if how in NAMED else how)
    assert sampler.responses(PROMPTS) == expected and len(calls) == 2
    assert file.read_text() == whole


def test_kept_responses_of_another_question_are_not_taken(counted):
    loaded, calls = counted
    sampler = ResponseSampler(loaded.model, loaded.tokenizer, Sampling(), model_sha256=loaded.sha256)
    sampler.responses(PROMPTS)
    (file,) = (cache_folder() / "responses").iterdir()
    other = kept_file(sampler.cache_key(PROMPTS[:2]))
    file.rename(other)
    assert len(sampler.responses(PROMPTS[:2])) == 2 and len(calls) == 2


def test_a_cache_that_cannot_be_written_is_done_without(counted, caplog, monkeypatch, tmp_path):
    loaded, calls = counted
    sampler = ResponseSampler(loaded.model, loaded.tokenizer, Sampling(), model_sha256=loaded.sha256)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path / "file"))
    first, second = sampler.responses(PROMPTS), sampler.responses(PROMPTS)
    assert first == second and len(calls) == 2
    assert caplog.text.count("cannot be kept") == 1
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path))
    kept_file(sampler.cache_key(PROMPTS)).mkdir(parents=True)
    assert sampler.responses(PROMPTS) == first
    assert not list((tmp_path / "responses").glob("*.tmp"))


# --- Own and shared -------------------------------------------------------------------------------------------------


def three_twins():
    return tuple(Prompt(f"{group} text", group, "p") for group in ("a", "b", "c"))


@pytest.mark.parametrize("k", [1, 2])
def test_shared_examples_put_every_twin_on_every_response(k):
    twins = three_twins()
    encoded = ((1,), (2,), (3,))
    drawn = [[(10 * g + s,) for s in range(k)] for g in range(3)]
    made = shared_examples([twins], [encoded], [drawn])
    assert len(made) == 3 * 3 * k
    responses = {group: sorted(e.response_ids for e in made if e.prompt.group == group) for group in "abc"}
    assert responses["a"] == responses["b"] == responses["c"]
    assert Counter((e.prompt.group, e.source) for e in made) == dict.fromkeys(
        [(g, s) for g in "abc" for s in "abc"], k
    )
    assert all(e.prompt_ids == encoded["abc".index(e.prompt.group)] for e in made)
    assert all(e.response_ids == (10 * "abc".index(e.source) + e.sample,) for e in made)


def test_swapping_the_twins_gives_the_same_examples():
    twins, encoded = three_twins(), ((1,), (2,), (3,))
    drawn = [[(4, 5)], [(6,)], [(7, 8)]]
    forward = shared_examples([twins], [encoded], [drawn])
    backward = shared_examples([twins[::-1]], [encoded[::-1]], [drawn[::-1]])
    assert set(forward) == set(backward) and len(forward) == len(backward) == 9


def test_own_examples_keep_to_themselves():
    twins = three_twins()
    made = own_examples(twins, [(1,), (2,), (3,)], [[(4,), (5,)], [(6,), (7,)], [(8,), (9,)]])
    assert [(e.prompt.group, e.source, e.sample, e.response_ids) for e in made[:3]] == [
        ("a", "a", 0, (4,)),
        ("a", "a", 1, (5,)),
        ("b", "b", 0, (6,)),
    ]


def test_the_sampler_returns_tuples_in_order(tiny_loaded, tiny_prompts):
    twins = tiny_prompts.split("test").tuples()
    sampler = ResponseSampler(tiny_loaded.model, tiny_loaded.tokenizer, Sampling(num_responses=2))
    for shared, count in ((True, 8), (False, 4)):
        made = sampler.examples(twins, shared=shared)
        assert [len(examples) for examples in made] == [count] * 12
        for pair, examples in zip(twins, made, strict=True):
            assert {e.prompt for e in examples} == set(pair)
            assert all(tiny_loaded.tokenizer.decode(e.prompt_ids) == e.prompt.text for e in examples)
    own = {e for examples in sampler.examples(twins, shared=False) for e in examples}
    shared = {e for examples in sampler.examples(twins, shared=True) for e in examples}
    assert own == {e for e in shared if e.source == e.prompt.group}
