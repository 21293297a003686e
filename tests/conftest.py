"""What the tests share: an offline machine, a tiny tokenizer, tiny random models, and a few dozen pairs of prompts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CACHE = tempfile.TemporaryDirectory(prefix="isentropic-tests-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ISENTROPIC_CACHE": _CACHE.name,
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402

JOBS = ("nurse", "pilot", "baker", "clerk", "judge", "farmer", "tailor", "miner")
TEMPLATES = {  # topic -> the two twins, with the job to be filled in
    "works": ("He is a {}. He", "She is a {}. She"),
    "asked": ("The {} put on his coat and", "The {} put on her coat and"),
    "family": ("My father the {} told me", "My mother the {} told me"),
    "school": ("As a boy the {} learned", "As a girl the {} learned"),
    "sum": ("The {} has 3 pens. He buys 4. He", "The {} has 3 pens. She buys 4. She"),
    "guest": ("We met a {}, a kind man who", "We met a {}, a kind woman who"),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(*, pad: str | None = "<pad>", chat: bool = False) -> Any:
    """A byte-level tokenizer of 320 tokens: end of text is id 0, padding id 1.

    Args:
        pad: the pad token; ``"<end>"`` makes it the end of text, ``None`` leaves it out.
        chat: give it a chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [twin.format(job) for twins in TEMPLATES.values() for twin in twins for job in JOBS]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<end>", "<pad>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token=pad)
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def make_model(kind: str = "llama", *, seed: int = 0, vocab: int = 320) -> Any:
    """A random model of two layers: ``llama``, ``gpt2`` or ``qwen2``. Large weights, so that entropies vary."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

    torch.manual_seed(seed)
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {"vocab_size": vocab, "max_position_embeddings": 256, "initializer_range": 0.5, **ends}
    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: LlamaConfig(num_key_value_heads=2, **wide, **common),
        "qwen2": lambda: Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, **wide, **common),
        "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **common),
    }
    return AutoModelForCausalLM.from_config(configs[kind](), attn_implementation="eager").eval()


def make_prompts() -> Any:
    """48 pairs in 6 topics: 24 to train on, 12 for validation, 12 to test (in cells)."""
    from isentropic.prompts.prompt_set import Prompt, PromptSet

    splits = ("train",) * 4 + ("validation",) * 2 + ("test",) * 2
    cells = dict(zip(JOBS[6:], ("new occupations", "both new"), strict=True))
    prompts = tuple(
        Prompt(twin.format(job), group, f"{topic}-{job}", topic, split, cells.get(job))
        for topic, twins in TEMPLATES.items()
        for job, split in zip(JOBS, splits, strict=True)
        for group, twin in zip(("male", "female"), twins, strict=True)
    )
    return PromptSet(prompts, ("male", "female"), "tiny prompts")


def make_folder(folder: Path, kind: str = "llama", *, seed: int = 0, pad: str | None = "<pad>") -> Path:
    """A model folder as ``save_pretrained`` writes it, tokenizer included."""
    make_model(kind, seed=seed).save_pretrained(folder)
    make_tokenizer(pad=pad).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """The tokenizer with a pad token of its own. Shared: do not change it."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def padless_tokenizer() -> Any:
    """The tokenizer whose pad token is its end of text. Shared: do not change it."""
    return make_tokenizer(pad="<end>")


@pytest.fixture(scope="session")
def chat_tokenizer() -> Any:
    """The tokenizer with a chat template. Shared: do not change it."""
    return make_tokenizer(chat=True)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """``tiny_model("llama", seed=0)``: a new model each time; ``gpt2`` and ``qwen2`` too."""
    return make_model


@pytest.fixture
def tiny_loaded(tiny_tokenizer: Any) -> Any:
    """A new tiny Llama with its tokenizer, as `load_model` would give it."""
    from isentropic.models.model import LoadedModel
    from isentropic.models.save import weights_sha256

    model = make_model()
    return LoadedModel(model, tiny_tokenizer, "tiny", weights_sha256(model))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama, for the command line. Shared: read it only."""
    return make_folder(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_prompts() -> Any:
    """48 pairs in 6 topics, in three splits."""
    return make_prompts()


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory, tiny_prompts: Any) -> Path:
    """The same pairs as a JSONL file for ``--train_data``."""
    from isentropic.prompts.preview import write_prompts

    return write_prompts(tiny_prompts, tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="session", autouse=True)
def _temporary_cache() -> Iterator[None]:
    yield
    _CACHE.cleanup()
