"""What is refused before a run folder is made: an environment,
a model or packages that cannot do what is asked."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object, parse_flag_from_env

from isentropic.commands.saving import dtype_to_save
from isentropic.errors import InputError
from isentropic.measure.cost import text_tokens
from isentropic.measure.expectation import context_examples
from isentropic.models.load import eight_bit_options
from isentropic.models.model import LoadedModel, context_length, vocabulary_size
from isentropic.prompts.contexts import read_contexts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.responses.encode import check_vocabulary, encode_prompts
from isentropic.settings import TrainSettings, split_names
from isentropic.text import short
from isentropic.training.adapter import check_trainable

if TYPE_CHECKING:
    from isentropic.training.trainer import DebiasingConfig

SHARDING_FLAGS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Set by accelerate where it spreads the state of training over processes."""
LOGIT_BYTES = 14
"""The most that one logit takes on its way to an entropy: bfloat16, float32,
and two float32 working copies."""
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun and accelerate set for each process of a distributed run."""
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""The same from MPI launchers; accelerate reads them too."""


# --- The environment ----------------------------------------------------------------------------------------


def launched_process() -> tuple[int, int]:
    """Rank and number of processes, as the launcher tells them in the environment.

    Raises:
        InputError: the variables contradict each other, as those left over from another job do. A run of one
            process would then wait for others that do not exist, or take itself for one that writes nothing.
    """
    rank, size, local_rank = (environment_number(name) for name in LAUNCHER[:3])
    for name in MPI_SIZES:
        if size is None and (environment_number(name) or 1) > 1:
            raise InputError(
                f"{name} is {os.environ[name]} in the environment and WORLD_SIZE is not set; MPI launchers "
                f"are not supported; unset {name} for one process, or start several with torchrun or "
                "accelerate launch"
            )
    if not rank and (size or 1) == 1 and local_rank is None:
        return 0, 1
    there = [
        f"{name} is {os.environ[name]!r}" for name in LAUNCHER if os.environ.get(name, "-1") not in ("", "-1")
    ]
    missing = [name for name in LAUNCHER if os.environ.get(name, "-1") in ("", "-1")]
    if missing:
        raise InputError(
            f"{', '.join(there)} in the environment, but {', '.join(missing)} not; this looks left over from "
            f"another job; unset {', '.join(name for name in LAUNCHER if name in os.environ)} for one "
            "process, or start several with torchrun or accelerate launch"
        )
    environment_number("MASTER_PORT")
    assert rank is not None and size is not None
    if rank >= size:
        raise InputError(
            f"RANK is {rank} in the environment and WORLD_SIZE {size}; ranks count from 0 to below that; "
            f"unset {', '.join(LAUNCHER)} for one process, or start several with torchrun or accelerate "
            "launch"
        )
    return rank, size


def environment_number(name: str) -> int | None:
    """A whole number in the environment; None where it is not set, or is -1,
    which launchers write for that."""
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = -2
    if number < -1:
        raise InputError(
            f"{name} is {text!r} in the environment, expected a whole number; this looks left over from "
            f"another job; unset {name}"
        )
    return None if number == -1 else number


def check_processes(
    config: DebiasingConfig, prompts: PromptSet, loaded: LoadedModel, launched: tuple[int, int]
) -> None:
    """All processes of a run know of each other, and train the same model on the same prompts."""
    if launched != (config.process_index, config.world_size):
        raise InputError(
            f"the environment says process {launched[0]} of {launched[1]} (RANK, WORLD_SIZE), and accelerate "
            f"found process {config.process_index} of {config.world_size}; unset these for one process, or "
            "start several with torchrun or accelerate launch"
        )
    if config.world_size == 1:
        return
    for what, flag, mine in (
        ("prompts", "--train_data", prompts.sha256),
        ("weights", "--model_path", loaded.sha256),
    ):
        found = gather_object([mine])
        if len(set(found)) > 1:
            raise InputError(
                f"the {len(found)} processes have different {what} ({', '.join(sha[:8] for sha in found)}); "
                f"each would train on something different; give every process the same {flag}"
            )


# --- The model ----------------------------------------------------------------------------------------------


def check_model(
    settings: TrainSettings, config: DebiasingConfig, parts: dict[str, PromptSet], loaded: LoadedModel
) -> None:
    """Refuse what this model cannot do, before anything is written."""
    for part in parts.values():
        limits = context_length(loaded.model), vocabulary_size(loaded.model)
        encode_prompts(part.prompts, loaded.tokenizer, config.sampling(), *limits)
    check_trainable(loaded.model, settings.lora_r > 0, settings.gradient_checkpointing)
    needed = LOGIT_BYTES * vocabulary_size(loaded.model) / 2**20
    assert config.chunk_mb is not None
    if config.chunk_mb < needed:
        raise InputError(
            f"--chunk_mb is {config.chunk_mb:g}; one row of this model's logits needs {needed:.2g} MB; give "
            "at least that"
        )
    check_adapter(settings, config, loaded)
    check_range(settings, loaded)
    check_served(settings, config)
    if settings.hold_contexts:
        check_contexts(settings.hold_contexts, parts["train"].groups, loaded)
    if settings.text_file:
        text_tokens(loaded, settings.text_file)


def check_contexts(file: str, groups: Sequence[str], loaded: LoadedModel) -> None:
    """Refuse contexts that the model cannot read."""
    context, vocabulary = context_length(loaded.model), vocabulary_size(loaded.model)
    for examples in context_examples(read_contexts(file, groups), groups, loaded.tokenizer):
        for example in examples:
            ids, where = (*example.prompt_ids, *example.response_ids), f"context {short(example.prompt.text)}"
            check_vocabulary(ids, loaded.tokenizer, vocabulary, where)
            if context is not None and len(ids) > context:
                raise InputError(
                    f"--hold_contexts {file!r}: {where} has {len(ids)} tokens with the words behind it, but "
                    f"the model's context is {context}; the model cannot read all of it; shorten it"
                )


def check_range(settings: TrainSettings, loaded: LoadedModel) -> None:
    """Refuse to save in float16 weights that are too large for it; bfloat16 ends where float32 does."""
    if dtype_to_save(settings, loaded) != torch.float16:
        return
    limit = torch.finfo(torch.float16).max
    for name, parameter in loaded.model.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            largest = max(abs(float(end)) for end in parameter.detach().aminmax())
            if math.isfinite(largest) and largest > limit:
                raise InputError(
                    f"the model would be saved in float16, which ends at {limit:g}, and {name} has a weight "
                    f"of size {largest:g}; it would be saved as infinite; give --save_dtype bfloat16 or "
                    "float32"
                )


def check_served(settings: TrainSettings, config: DebiasingConfig) -> None:
    """Refuse to measure the saved model in a dtype where it cannot be loaded again."""
    if "int8" in split_names(settings.also_measure or ""):
        eight_bit_options()
    if settings.also_measure and config.world_size > 1 and any(map(parse_flag_from_env, SHARDING_FLAGS)):
        raise InputError(
            "--also_measure with weights that are sharded over processes; one process cannot load the saved "
            "model again among them; leave it out and measure final/ afterwards"
        )


def check_adapter(settings: TrainSettings, config: DebiasingConfig, loaded: LoadedModel) -> None:
    """Refuse an adapter that cannot be made, saved or merged."""
    if settings.lora_r and (Path(settings.model_path) / "adapter_config.json").is_file():
        raise InputError(
            f"--lora_r with --model_path {settings.model_path!r}, which is an adapter already; the new "
            "adapter would be saved without it; give the merged model (--merge_lora saves it), or leave "
            "--lora_r out"
        )
    if settings.merge_lora and config.world_size > 1 and any(map(parse_flag_from_env, SHARDING_FLAGS)):
        raise InputError(
            "--merge_lora with weights that are sharded over processes; an adapter cannot be merged into "
            "shards; leave it out and merge final/ afterwards in one process"
        )
    if settings.lora_r and settings.lora_target_modules:
        linear = {n for n, m in loaded.model.named_modules() if hasattr(m, "weight") and m.weight.dim() == 2}
        for name in split_names(settings.lora_target_modules):
            if not any(module == name or module.endswith(f".{name}") for module in linear):
                there = ", ".join(sorted({module.rsplit(".", 1)[-1] for module in linear}))
                raise InputError(
                    f"--lora_target_modules names {name!r}, which this model does not have; there would be "
                    f"no place for the adapter; choose from {there}"
                )


# --- Packages -----------------------------------------------------------------------------------------------


def trackers_of(settings: TrainSettings) -> list[str]:
    """The trackers asked for; each must be installed."""
    from transformers.integrations import get_available_reporting_integrations

    names = [name for name in split_names(settings.report_to) if name != "none"]
    there = get_available_reporting_integrations()
    for name in names:
        if name not in there:
            raise InputError(
                f"--report_to names {name!r}, which is not installed here; its metrics would be lost; pip "
                f"install 'isentropic[{name}]' or use none"
            )
    return names


def lora_of(settings: TrainSettings) -> Any:
    if not settings.lora_r:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError(
            "--lora_r needs the package peft, which is not installed; pip install 'isentropic[lora]'"
        ) from error
    modules = settings.lora_target_modules
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_r,
        lora_dropout=0.0,
        target_modules=split_names(modules) if modules else "all-linear",
        task_type="CAUSAL_LM",
    )
