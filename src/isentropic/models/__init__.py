"""What ``--model_path`` may name: loading and saving."""

from isentropic.models.gguf import GGUF_MAGIC, check_gguf, dequantised_folder, embedded_folder
from isentropic.models.identity import model_sha256
from isentropic.models.load import (
    check_complete,
    check_folder,
    four_bit_options,
    load_model,
    looks_like_a_path,
    ready_tokenizer,
)
from isentropic.models.model import (
    EMBEDDED,
    LoadedModel,
    context_length,
    has_bfloat16,
    precision,
    quiet_transformers,
    vocabulary_size,
)
from isentropic.models.save import save_model

__all__ = [
    "EMBEDDED",
    "GGUF_MAGIC",
    "LoadedModel",
    "check_complete",
    "check_folder",
    "check_gguf",
    "context_length",
    "dequantised_folder",
    "embedded_folder",
    "four_bit_options",
    "has_bfloat16",
    "load_model",
    "looks_like_a_path",
    "precision",
    "quiet_transformers",
    "ready_tokenizer",
    "save_model",
    "vocabulary_size",
    "model_sha256",
]
