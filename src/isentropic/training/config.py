"""The trainer's configuration: transformers' own, with the settings of the loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from isentropic.errors import InputError
from isentropic.models.model import has_bfloat16
from isentropic.responses.response import Draw, Sampling
from isentropic.settings import LossSettings, RunSettings, changed
from isentropic.training.natural import SHARE


@dataclass
class DebiasingConfig(LossSettings, TrainingArguments):
    """Settings of :class:`DebiasingTrainer`: those of ``TrainingArguments`` and of :class:`LossSettings`.

    Defaults that differ from the parent's: ``learning_rate`` 1e-5, ``max_steps`` 20, ``adam_beta1`` 0
    (momentum overshoots the target), ``lr_scheduler_type`` linear, ``eval_strategy`` steps every 2,
    ``logging_steps`` 1, ``bf16`` where the machine is fast at it, ``chunk_mb`` 32 on a CPU and 1024 on a GPU,
    ``report_to`` none, ``project`` isentropic, ``seed`` 42. ``per_device_train_batch_size`` and
    ``gradient_accumulation_steps`` follow from ``micro_batch_size`` and ``effective_batch``, both counted in
    prompts.

    Raises:
        InputError: a value that cannot work; the command line makes the same checks.

    Example:
        >>> DebiasingConfig(output_dir="runs/example", target_gap=0.01).learning_rate
        1e-05
    """

    # Here -1 leaves the number of steps to num_train_epochs, and transformers knows more schedules.
    max_steps: int = LossSettings.max_steps
    lr_scheduler_type: str = LossSettings.lr_scheduler_type
    warmup_steps: float = LossSettings.warmup_steps  # type: ignore[assignment]
    gradient_checkpointing: bool | None = None  # type: ignore[assignment]
    bf16: bool | None = None  # type: ignore[assignment]
    chat: bool = False
    seed: int = changed(RunSettings, "seed", RunSettings.seed)
    eval_strategy: str = "steps"
    eval_steps: float | None = RunSettings.eval_steps
    logging_steps: float = RunSettings.log_steps
    save_strategy: str = "no"
    report_to: None | str | list[str] = field(default_factory=list)
    project: str = "isentropic"
    disable_tqdm: bool = True
    remove_unused_columns: bool = False

    def __post_init__(self) -> None:
        self.check(groups=None)
        if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
            self.use_cpu = True  # or transformers refuses bfloat16, which newer processors do have
        if self.bf16 is None:
            self.bf16 = has_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        if self.chunk_mb is None:  # small chunks keep a laptop's peak low; on a GPU they cost time
            self.chunk_mb = 1024.0 if torch.cuda.is_available() else 32.0
        if self.natural:  # a step has its length from the gap: nothing else may change it
            self.learning_rate, self.lr_scheduler_type, self.max_grad_norm = SHARE, "constant", 0.0
            self.warmup_steps = 0
        super().__post_init__()
        # Or the Trainer would cut each micro-batch over all GPUs of the machine (DataParallel) and make the
        # effective batch as many times as large. Several GPUs take several processes.
        self._n_gpu = min(self.n_gpu, 1)

    def check(self, groups: int | None = 2, world_size: int = 1) -> None:
        """The checks of the command line, with the names that they have in Python."""
        try:
            super().check(groups, world_size)
        except InputError as error:
            raise InputError(str(error).replace("--", "")) from None

    def sampling(self, draw: int = Draw.TRAINING, *, num_responses: int | None = None) -> Sampling:
        """How responses are drawn; each kind of draw has a seed of its own."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            sample_temp=self.sample_temp,
            num_responses=num_responses or self.num_responses,
            seed=self.seed + draw,
            chat=self.chat,
            system=self.system,
            chat_template_kwargs=self.chat_template_kwargs,
        )
