"""Supervised fine-tuning and direct preference optimisation, by TRL.

A run that was killed goes on from its newest state. Under `accelerate launch` or torchrun every
process trains its share of each step. Weights end up in `folder`, a LoRA as PEFT writes it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from staged import images
from staged.devices import choose_arithmetic
from staged.jobs.files import write_json
from staged.jobs.progress import Progress
from train.self_reward.examples import Example, as_trl
from train.self_reward.settings import DpoSettings, LoraOptions, TuningSettings, VlmSettings
from train.self_reward.vlm import base_of, no_bars, open_model, open_processor

STATES: Final = "states"
LOG: Final = "training.json"


def dataset_of(examples: Sequence[Example]) -> Any:
    """Examples as TRL takes them; pictures are decoded when their turn comes."""
    from datasets import Dataset

    def decoded(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        records = []
        for place in batch["place"]:
            one = examples[place]
            shown = [Image.fromarray(images.decode_file(path)) for path in one.images]
            records.append(as_trl(one, shown))
        return {name: [record[name] for record in records] for name in records[0]}

    # Arrow would give every part of a message the fields of every other; numbers it leaves alone.
    places = Dataset.from_dict({"place": list(range(len(examples)))})
    return places.with_transform(decoded)


def tune(
    source: str,
    examples: Sequence[Example],
    folder: Path,
    settings: TuningSettings,
    vlm: VlmSettings,
    *,
    seed: int,
    learning_rate: float | None = None,
) -> list[dict[str, float]]:
    """Train a model on examples, and write it.

    Args:
        source: Folder or Hub id of the model; where it is a LoRA, that one is trained on.
        examples: All with `rejected`, for `DpoSettings`, or all without.
        folder: For the weights; states are kept beside them until the end.
        settings: `DpoSettings` prefers, others imitate.
        vlm: Precision, device, and whether a LoRA is trained.
        seed: Of the order of examples, and of a fresh LoRA.
        learning_rate: Peak, where it is another than the settings'.

    Returns:
        What was logged, step by step.

    Raises:
        ValueError: There is nothing to train on, or TRL is not installed.
    """
    prefer = isinstance(settings, DpoSettings)
    if not examples or any((one.rejected is not None) != prefer for one in examples):
        raise ValueError(
            f"{len(examples)} examples: training needs some, all "
            f"{'with' if prefer else 'without'} a rejected answer"
        )
    try:
        from transformers import PrinterCallback, set_seed
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer
    except ImportError as error:
        raise ValueError(
            f"training needs TRL and PEFT: pip install staged[preference] ({error})"
        ) from None
    chosen = choose_arithmetic(vlm.device, vlm.dtype)
    arguments = _arguments(folder, settings, chosen.device, chosen.dtype, seed=seed)
    if learning_rate is not None:
        arguments["learning_rate"] = learning_rate
    set_seed(seed)
    model, extra = _model(source, vlm, chosen.dtype)
    shared: dict[str, Any] = {
        "model": model,
        "train_dataset": dataset_of(examples),
        "processing_class": open_processor(source),
        **extra,
    }
    trainer: Any
    no_bars()
    if isinstance(settings, DpoSettings):
        if not extra and base_of(source) is None:
            # A model made in memory has no name by which TRL could open it a second time.
            shared["ref_model"] = open_model(source, chosen.dtype).eval()
        trainer = DPOTrainer(args=DPOConfig(beta=settings.beta, **arguments), **shared)
    else:
        trainer = SFTTrainer(args=SFTConfig(**arguments), **shared)
    trainer.remove_callback(PrinterCallback)  # a line of figures each step; they are in the log
    trainer.add_callback(_progress(str(folder.name)))
    if not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled and vlm.lora is None:
        trainer._load_from_checkpoint = partial(_take_up, model)
    states = sorted((folder / STATES).glob("checkpoint-*/trainer_state.json"))
    trainer.train(resume_from_checkpoint=bool(states))
    trainer.save_model(str(folder))
    logged: list[dict[str, float]] = list(trainer.state.log_history)
    if trainer.is_world_process_zero():
        shared["processing_class"].save_pretrained(str(folder))
        write_json(folder / LOG, logged)  # last: it says that all is there
    trainer.accelerator.wait_for_everyone()
    return logged


def _take_up(model: Any, folder: str, *_: Any) -> None:
    """Load the weights of a state.

    The trainer's own way takes the file's names for the model's, which they are not where a model
    is kept under older ones (LLaVA): it then only warns, and goes on with the weights of the start.
    """
    model.load_state_dict(open_model(folder, torch.float32).state_dict())


def _progress(name: str) -> Any:
    """What shows how far training is, as every long work does here."""
    from transformers import TrainerCallback

    class Shown(TrainerCallback):
        _bar: Progress | None = None

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not state.is_world_process_zero:
                return
            if self._bar is None:
                self._bar = Progress(
                    f"training {name}", state.max_steps, done=state.global_step - 1
                )
            self._bar.advance()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self._bar is not None:
                self._bar.close()

    return Shown()


def _arguments(
    folder: Path, settings: TuningSettings, device: torch.device, dtype: torch.dtype, *, seed: int
) -> dict[str, Any]:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    held = settings.micro_batch_size * processes
    if settings.batch_size % held:
        raise ValueError(
            f"batch_size {settings.batch_size} is no multiple of {processes} processes times "
            f"micro_batch_size {settings.micro_batch_size}; choose one that is"
        )
    return {
        "output_dir": str(folder / STATES),
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.batch_size // held,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup,  # below 1 it is a share
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.betas[0],
        "adam_beta2": settings.betas[1],
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "max_length": None,  # a cut would go through the tokens of a picture
        "remove_unused_columns": False,
        "save_steps": settings.save_every_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": [],
        "seed": seed,
        "use_cpu": device.type == "cpu",
        "bf16": dtype == torch.bfloat16,
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type != "cpu",
    }


def _model(source: str, vlm: VlmSettings, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The model to train, and what TRL must know of a LoRA.

    Weights that are trained are float32: AdamW's small steps vanish in bfloat16. Beside a LoRA they
    only compute.
    """
    if vlm.lora is None:
        return open_model(source, torch.float32), {}
    base = base_of(source)
    if base is None:
        return open_model(source, dtype), {"peft_config": _lora(vlm.lora)}
    from peft import PeftModel

    return PeftModel.from_pretrained(open_model(base, dtype), source, is_trainable=True), {}


def _lora(options: LoraOptions) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.targets,
        task_type="CAUSAL_LM",
    )
