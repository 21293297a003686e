"""The architecture zoo: every causal family of transformers, tiny and random, held against its plain model.

For each family: are the entropies those of the plain model in float64, is the gradient that of autograd, is it the same for
any cut of the batch, does what is saved and loaded again give the entropies that were measured, and are sampled responses
those of the model without padding? A family is right, right with a line that says what is slower, refused in a line, or
wrong. The last should have no member.

    python benchmarks/zoo.py                      # all families; minutes
    python benchmarks/zoo.py --family mamba opt   # some
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import logging as transformers_logging
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common import Row, into_page, parser, publish, table
from isentropic.entropy.reference import token_entropy
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.models.trial import same_logits
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import collate_examples
from isentropic.responses.response import Example, Sampling
from isentropic.responses.sample import sample_responses, uniform_numbers
from isentropic.training.exact_loss import without_chance

VOCABULARY = 320
MOST_PARAMETERS = 20e6
SECONDS = 90
TOLERANCE = {"entropy": 1e-4, "gradient": 1e-3, "cut": 1e-3, "reloaded": 1e-4, "sampled": 0.0}
QUICK = ("llama", "opt", "bloom", "jamba", "roberta", "roberta as decoder", "mamba")
SIZES = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "attention_hidden_size",
         "emb_dim", "lru_width", "moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_inner", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "ffn_hidden_size"), 64),
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers", "num_blocks",
         "num_key_value_heads", "num_kv_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "encoder_attention_heads",
         "attention_heads", "num_heads", "num_experts", "num_local_experts", "n_routed_experts", "time_step_rank"), 4),
    **dict.fromkeys(
        ("head_dim", "state_size", "attention_head_size", "rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim",
         "index_head_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length", "max_target_positions"), 128),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 0),
}  # fmt: skip
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VARIANTS: dict[str, tuple[str, Row]] = {
    **{f"{family} as decoder": (family, {"is_decoder": True}) for family in
       ("bert", "roberta", "xlm-roberta", "camembert", "electra", "big_bird", "data2vec-text", "megatron-bert",
        "rembert", "roformer", "xmod", "roberta-prelayernorm", "xlm-roberta-xl")},
    "xlm as decoder": ("xlm", {"causal": True, "is_encoder": False}),
    "falcon with alibi": ("falcon", {"alibi": True}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "opt, layerdrop": ("opt", {"layerdrop": 0.5, "dropout": 0.5}),
    "mixtral, jitter": ("mixtral", {"router_jitter_noise": 0.5}),
    "mistral, window of 8": ("mistral", {"sliding_window": 8}),
    "gemma2, window of 8": ("gemma2", {"sliding_window": 8}),
    "phi3, longrope of 16": ("phi3", {
        "original_max_position_embeddings": 16,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4,
                            "long_factor": [3.0, 5.0, 9.0, 14.0], "original_max_position_embeddings": 16}}),
    "deepseek_v32, 8 of a row": ("deepseek_v32", {"index_topk": 8}),
    "doge, 18 of a row": ("doge", {"keep_window_size": 18}),
}  # fmt: skip
OWN_SIZES: dict[str, Row] = {
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"], "hash_seed": 0},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32}},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "bailing_hybrid": {"layer_group_size": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "shared_intermediate_size": 32},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_d_state": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2},
    "mpt": {"expansion_ratio": 2},
    "xlstm": {"num_heads": 2},
    "modernbert-decoder": {"layer_types": ["sliding_attention", "full_attention"], "local_attention": 64},
}  # fmt: skip


# --- Tiny models ----------------------------------------------------------------------------------------------------


def tiny_config(name: str) -> Any:
    """The configuration of a family, with every size that it knows made small."""
    family, changes = VARIANTS.get(name, (name, {}))
    kind = CONFIG_MAPPING[family]
    alias = dict(getattr(kind, "attribute_map", {}))
    known = set(kind().to_dict()) | set(alias)
    sizes = {
        key: value
        for key, value in {**SIZES, "vocab_size": VOCABULARY}.items()
        if key in known and alias.get(key) not in SIZES
    }
    if "kv_lora_rank" in known:
        sizes["num_key_value_heads"] = sizes[
            "num_attention_heads"
        ]  # latent attention has one key for each head
    return AutoConfig.for_model(family, **{**sizes, **OWN_SIZES.get(family, {}), **changes})


@torch.no_grad()
def tiny_model(name: str) -> Any:
    """Random weights whose logits have a spread of about 2, so that entropies differ from prompt to prompt."""
    config = tiny_config(name)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} M parameters, though its known sizes are small")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().float()
    for module in model.modules():
        for parameter_name, p in module.named_parameters(recurse=False):
            if isinstance(module, torch.nn.Embedding):
                p.normal_(std=0.5)
            elif p.ndim in (2, 3) and min(p.shape) > 1 and "conv" not in type(module).__name__.lower():
                p.normal_(std=p.shape[-1] ** -0.5)
            elif p.ndim == 1 and parameter_name == "bias":
                p.add_(torch.randn(p.shape) * 0.1)
    head = model.get_output_embeddings()
    for _ in range(3 if head is not None else 0):
        spread = model(input_ids=torch.arange(60, 72)[None], use_cache=False).logits.float().std(-1).mean()
        head.weight.mul_(2.0 / spread)
    on_eager_attention(model)
    return model


@torch.no_grad()
def on_eager_attention(model: Any) -> None:
    """The kernel that `load_model` chooses: eager, unless its logits are others than those of the model's own."""
    own, ids = model.config._attn_implementation, torch.arange(60, 84)[None]
    if own == "eager" or not model._can_set_attn_implementation():
        return
    truth = model(input_ids=ids, use_cache=False).logits
    model.set_attn_implementation("eager")
    if not same_logits(truth, model(input_ids=ids, use_cache=False).logits):
        model.set_attn_implementation(own)


def made_examples() -> list[Example]:
    """Six prompts of unequal length, each with two responses."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(60, 300, count))

    prompt = Prompt("", "male")
    rows = [(tokens(n), k) for n in (3, 5, 8, 11, 14, 14) for k in range(2)]
    return [
        Example(prompt, rows[i - i % 2][0], tokens(3 + i % 3), "male", k) for i, (_, k) in enumerate(rows)
    ]


# --- What is checked ------------------------------------------------------------------------------------------------


def plain_entropies(model: Any, examples: Sequence[Example]) -> Tensor:
    """Row by row from the model and its tokens alone."""
    found = []
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]
        found.append(token_entropy(logits).mean())
    return torch.stack(found)


def exact_entropies(model: Any, examples: Sequence[Example]) -> Tensor:
    """The same in float64 where the family can, else in float32."""
    with torch.no_grad():
        try:
            return plain_entropies(copy.deepcopy(model).double(), examples)
        except (RuntimeError, TypeError, ValueError):
            return plain_entropies(model, examples)


def gradient(model: Any, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([part.double().flatten() for part in parts])


def apart(ours: Tensor, truth: Tensor) -> float:
    return float((ours - truth).norm() / truth.norm()) if ours.shape == truth.shape else float("inf")


def weighted_gradient(
    model: Any, scorer: EntropyScorer, examples: Sequence[Example], weights: Tensor
) -> Tensor:
    model.train()
    without_chance(model)
    batch = collate_examples(examples, 0, scorer.longest_row(model))
    found = gradient(model, scorer.weighted(model, **batch, row_weights=weights)[0])
    model.eval()
    return found


def unpadded_responses(
    model: Any, prompts: Sequence[tuple[int, ...]], sampling: Sampling
) -> list[tuple[int, ...]]:
    """Token by token from the model and its tokens alone."""
    found = []
    for prompt in prompts:
        ids = list(prompt)
        for number in uniform_numbers(prompt, 0, sampling):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            cumulative = torch.softmax(logits.float(), -1).cumsum(-1)
            ids.append(int(torch.searchsorted(cumulative, float(number) * cumulative[-1], right=True)))
            if ids[-1] == 0:
                break
        found.append(tuple(ids[len(prompt) :]))
    return found


def examine(model: Any, say: Callable[[], str]) -> Row:
    """The figures of one model, or where and why it is refused."""
    examples = made_examples()
    truth = exact_entropies(model, examples)
    found: Row = {"parameters": sum(p.numel() for p in model.parameters())}
    scorer = EntropyScorer()
    try:
        scorer.fit_of(model)
    except InputError as error:
        return found | {"refused": str(error)}

    def entropies(longest: int) -> Tensor:
        with torch.no_grad():
            return scorer.score(model, **collate_examples(examples, 0, longest)).means()

    ours = [entropies(scorer.longest_row(model)), entropies(0)]
    found["entropy"] = max(float((h.double() - truth).abs().max()) for h in ours)
    prompts = sorted({example.prompt_ids for example in examples})
    sampling = Sampling(max_new_tokens=4)
    drawn = [x[0] for x in sample_responses(model, prompts, sampling, ends=(0,))]
    found["sampled"] = float(
        sum(a != b for a, b in zip(drawn, unpadded_responses(model, prompts, sampling), strict=True))
    )
    try:
        scorer.refuse_untrainable(model)
        weights = torch.linspace(-1.0, 1.5, len(examples))
        whole = weighted_gradient(model, scorer, examples, weights)
        naive = gradient(model, (weights * plain_entropies(model, examples)).sum())
        parts = [weighted_gradient(model, scorer, examples[k : k + 4], weights[k : k + 4]) for k in (0, 4, 8)]
        found["gradient"], found["cut"] = apart(whole, naive), apart(sum(parts), whole)
        found["reloaded"] = reloaded(model, scorer, examples)
    except InputError as error:
        found["refused"] = str(error)
    fit = scorer.fit_of(model)
    return found | {"engine": fit.engine, "longest_row": fit.longest_row, "said": say()}


def reloaded(model: Any, scorer: EntropyScorer, examples: Sequence[Example]) -> float:
    """A step of SGD along the last gradient; how far the model saved and loaded the plain way is from what is measured."""
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(1e-3 * p.grad / (p.grad.norm() + 1e-6))
        measured = scorer.score(model, **collate_examples(examples, 0)).means()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            plain = AutoModelForCausalLM.from_pretrained(folder).eval()
            return float((measured - plain_entropies(plain, examples)).abs().max())


# --- The run --------------------------------------------------------------------------------------------------------


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_family(name: str) -> Row:
    """What one family shows, with its verdict."""
    started = time.perf_counter()
    log, text = logging.getLogger("isentropic"), io.StringIO()
    handler = logging.StreamHandler(text)
    log.addHandler(handler)
    found: Row = {"family": name}
    try:
        with time_limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = tiny_model(name)
            except Exception as error:  # a family that small sizes do not fit is not of this zoo
                found |= {"verdict": "not built", "why": one_line(error)}
            else:
                found |= examine(model, text.getvalue)
                found["verdict"], found["why"] = verdict_of(found)
    except Exception as error:  # one family must not cost the others
        found |= {"verdict": "WRONG", "why": one_line(error)}
    finally:
        log.removeHandler(handler)
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:160]}"


def verdict_of(found: Row) -> tuple[str, str]:
    wrong = [
        f"{key} {found[key]:.2g}"
        for key, most in TOLERANCE.items()
        if key in found and not found[key] <= most
    ]
    if wrong:
        return "WRONG", ", ".join(wrong)
    if "refused" in found:
        return ("refused in training" if "entropy" in found else "refused"), found["refused"]
    said = found["said"].strip()
    return ("said" if said else "right"), said.replace("\n", " ")


def families() -> list[str]:
    return [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS]


def tables(rows: Sequence[Row]) -> str:
    """How many of each verdict, then one line a family."""
    counts = Counter(row["verdict"] for row in rows)
    head = table(["verdict", "families"], sorted(counts.items(), key=lambda pair: -pair[1]))
    names = ("entropy", "gradient", "cut", "reloaded", "sampled")

    def cell(row: Row, name: str) -> str:
        return f"{row[name]:.0e}" if row.get(name) else ("0" if name in row else "")

    lines = [
        [row["family"], row["verdict"], row.get("engine", ""), row.get("longest_row", ""),
         *(cell(row, name) for name in names), short(row["why"])]
        for row in rows
    ]  # fmt: skip
    return f"{head}\n\n{table(['family', 'verdict', 'engine', 'row', *names, 'why'], lines)}"


def short(why: str) -> str:
    text = why.replace("|", "/")
    return text if len(text) <= 150 else text[:147] + "..."


def main(words: Sequence[str] | None = None) -> None:
    made = parser(str(__doc__), "zoo")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--family", nargs="*", metavar="NAME", help="these only")
    made.add_argument(
        "--kept",
        nargs="+",
        type=Path,
        default=[],
        help="files of earlier runs, whose other families are kept",
    )
    made.add_argument("--docs", type=Path, help="a page that the tables are put into")
    args = made.parse_args(words)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    names = args.family if args.family is not None else (QUICK if args.quick else families())
    if unknown := [name for name in names if name not in families()]:
        sys.exit(f"no family {unknown[0]!r}; there are {', '.join(families())}")
    rows = [row for file in args.kept for row in json.loads(file.read_text(encoding="utf-8"))["families"]]
    rows = [row for row in rows if row["family"] not in names]
    for name in names:
        rows.append(run_family(name))
        args.out.with_suffix(".part").write_text(json.dumps({"families": rows}), encoding="utf-8")
        print(f"{name}: {rows[-1]['verdict']} {short(rows[-1]['why'])}", file=sys.stderr, flush=True)
    order = families()
    rows.sort(key=lambda row: order.index(row["family"]))
    args.quick = True  # every model here is tiny
    text = publish(args, "zoo", tables(rows), {"tolerance": TOLERANCE, "families": rows})
    if args.docs:
        into_page(args.docs, "zoo", text, "Architectures")


if __name__ == "__main__":
    main()
