"""Settings of reinforcement after imitation; read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from staged.backends.bagel_settings import BagelSettings
from staged.loops.policy import Inspect, Policy
from staged.ranges import check_finite, check_range
from train.parts import Part
from train.reinforce.advantages import CreditSettings
from train.settings import (
    ConditionDropout,
    Log,
    LoraSettings,
    OptimizerSettings,
    ParallelSettings,
    Subset,
    TrainSettings,
)

MAX_ROLLOUTS = 65_536
"""Of an iteration."""
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """What an iteration draws, and how."""

    num_prompts: int = 8
    """Prompts of an iteration; all of the file come in turn, in another order each time."""
    group_size: int = 8
    """Rollouts of each, which are compared with one another."""
    mode: Literal["staged", "one-shot"] = "staged"
    """Draw in stages, or at once."""
    temperature: float = 1.0
    """Of texts; 0 takes the likeliest token, so that a group's first plans are all the same."""
    choice_temperature: float = 1.0
    """Of what comes next: a text, a picture or the end."""
    num_flow_steps: int | None = None
    """Network evaluations a sketch; null, here and below, is what the checkpoint says."""
    guidance_scale: float | None = None
    """Over the last text; 1 is off, as in the published DiffusionNFT."""
    image_guidance_scale: float | None = None
    """Over images in context, beside the text; 1 is off."""
    max_rounds: int = Policy.max_rounds
    """Plans that are sketched, at most."""
    max_refinements: int = Policy.max_refinements
    """Of one plan, and of one round's sketch, at most."""
    max_flow_steps: int = Policy.max_flow_steps
    """Network evaluations of a rollout, at most."""
    max_attempts: int = Policy.max_attempts
    """Times that one step is tried before its rollout fails."""
    inspect_plan: Inspect = Policy.inspect_plan
    """Whether plans are inspected."""
    inspect_sketch: Inspect = Policy.inspect_sketch
    """Whether sketches are."""
    max_text_tokens: int = BagelSettings.max_text_tokens
    """Of a text; one that runs longer is cut off and tried again."""
    batch_size: int = 64
    """Rollouts side by side, at most; none depends on it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "num_prompts", "batch_size", "max_text_tokens", minimum=1)
        check_range(self, "group_size", minimum=2)
        check_range(self, "temperature", "choice_temperature", minimum=0, maximum=10)
        check_range(self, "num_flow_steps", minimum=1)
        check_range(self, "guidance_scale", "image_guidance_scale", minimum=1, maximum=100)
        if self.num_prompts * self.group_size > MAX_ROLLOUTS:
            raise ValueError(
                f"num_prompts {self.num_prompts} times group_size {self.group_size}: give at most "
                f"{MAX_ROLLOUTS} rollouts an iteration"
            )
        self.policy()

    def policy(self) -> Policy:
        """The loop's limits."""
        return Policy(
            mode=self.mode,
            max_rounds=self.max_rounds,
            max_refinements=self.max_refinements,
            max_flow_steps=self.max_flow_steps,
            max_attempts=self.max_attempts,
            inspect_plan=self.inspect_plan,
            inspect_sketch=self.inspect_sketch,
        )


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """Who grades rollouts."""

    kind: Literal["detector", "scorer"] = "detector"
    """`detector` is the miniature world's, which also knows plans, verdicts and what nobody
    touched; `scorer` is any that rates pictures of a prompt."""
    scorer: str | None = None
    """`module:function` that makes the scorer, such as
    `eval.search.verifiers.detector:MiniatureVerifier`; see `staged.roles.Verifier`."""
    arguments: dict[str, str] = field(default_factory=dict)
    """By name, for that function."""
    range: tuple[float, float] = (0.0, 1.0)
    """Ratings that are a grade of 0 and of 1; what lies beyond is cut off."""

    def __post_init__(self) -> None:
        """Check what belongs together."""
        check_finite(self)
        if (self.kind == "scorer") != (self.scorer is not None):
            raise ValueError(
                "kind is scorer, and scorer names none; give module:function"
                if self.kind == "scorer"
                else f"scorer is {self.scorer}, and kind is {self.kind}; give kind=scorer"
            )
        if self.scorer is not None and not _TARGET.fullmatch(self.scorer):
            raise ValueError(f"scorer is {self.scorer!r:.80}; give module:function")
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range is {list(self.range)}; give two numbers, the lower one first")


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How pictures are learned from."""

    beta: float = 1.0
    """b of DiffusionNFT: the smaller, the farther a reward pushes away from the old policy."""
    noised_copies: int = 1
    """Noised copies of each sketch, with noise and time of their own, over one context."""
    timestep_shift: float = 1.0
    """Bias of training times toward noise."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "beta", "timestep_shift", minimum=0, above=True)
        check_range(self, "noised_copies", minimum=1)


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How plans, verdicts, refinements and the stop are learned from."""

    weight: float = 0.1
    """Of their loss beside that of pictures; 0 leaves words to what pictures do to them."""
    clip: float = 0.2
    """How far the ratio of a token's likelihoods, new over old, may leave 1 and still gain."""
    kl_weight: float = 0.04
    """Of the divergence from the old policy, token by token."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "weight", "kl_weight", minimum=0, maximum=1000)
        check_range(self, "clip", minimum=0, maximum=1, above=True)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Fixed prompts and seeds, drawn by the policy as it stands: in stages, and in one shot.

    Texts take the likeliest token then. What one-shot drawing loses is seen here.
    """

    prompts: Path
    """File of one prompt a line, best none of those that are trained on."""
    every_iterations: int = 5
    """Iterations between; one comes before the first and one after the last."""
    max_prompts: int = 64
    """Of the file's first."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "every_iterations", "max_prompts", minimum=1)


@dataclass(frozen=True, kw_only=True)
class CollapseSettings:
    """When a run gives up."""

    stop_below: float = 0.5
    """It stops where the mean reward of the last iterations is below so much of the first ones';
    0 never stops."""
    patience: int = 5
    """Iterations that are taken together."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "stop_below", minimum=0, maximum=1, below=True)
        check_range(self, "patience", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ReinforceSettings:
    """Reinforcement of a BAGEL by its own graded rollouts."""

    init: str
    """Checkpoint to start from: a folder, a Hub id, or `miniature:base|staged|fresh`."""
    prompts: Path
    """File of one prompt a line."""
    out: Path
    """Folder of the run: rollouts, states, log, resolved settings, checkpoint."""
    iterations: int = 100
    """Times that rollouts are drawn and learned from; a finished run goes on with more of them."""
    epochs: int = 1
    """Times that an iteration's rollouts are learned from."""
    pack_tokens: int = 33_000
    """Tokens of a packed batch, at most; one rollout must fit. It may be changed in a run that goes
    on."""
    packs_per_step: int = 1
    """Packs whose gradients an optimizer step adds up, over all ranks together."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of forward and backward; weights, gradients and moments stay float32."""
    device: str = "auto"
    """Torch device; `auto` is a CUDA device where there is one, or the CPU."""
    num_threads: int = 0
    """CPU threads of torch; 0 leaves its own choice. A CPU run repeats bit by bit only with the
    same number."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What a layer keeps for its backward pass; see `staged train --help`."""
    max_logits_mib: int = 1024
    """MiB of float32 logits that stand at a time."""
    freeze: tuple[Part, ...] = ()
    """Parts that stay as they are; see `staged train --help`."""
    lora: LoraSettings | None = None
    """Train a LoRA instead of the weights; the result is a folder `adapter`."""
    seed: int = 0
    """Of prompts' order, rollouts, packs, times and noise."""
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    """Several processes; see `staged train --help`."""
    keep_checkpoints: int = 2
    """Newest states that are kept."""
    keep_rollouts: int = 20
    """Newest iterations whose rollouts are kept."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """What shows figures besides `log.jsonl`."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    """What is drawn."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """Who grades it."""
    credit: CreditSettings = field(default_factory=CreditSettings)
    """How grades become advantages."""
    images: ImageSettings = field(default_factory=ImageSettings)
    """How pictures are learned from."""
    texts: TextSettings = field(default_factory=TextSettings)
    """How words are."""
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(
            lr=1e-5, schedule="constant", warmup_steps=0, ema_decay=0.5
        )
    )
    """As of `staged train`, but warm-up and decay count iterations, and the average of weights is
    the policy that draws, and the result: after each iteration `ema_decay` of it stays, less in
    the first ones; 0 draws with what was just learned."""
    probe: ProbeSettings | None = None
    """Fixed prompts that are drawn now and then."""
    collapse: CollapseSettings = field(default_factory=CollapseSettings)
    """When to give up."""

    def __post_init__(self) -> None:
        """Check ranges."""
        names = ("iterations", "epochs", "pack_tokens", "packs_per_step", "max_logits_mib")
        check_range(self, *names, "keep_checkpoints", "keep_rollouts", minimum=1)
        check_range(self, "num_threads", minimum=0)
        check_range(self, "seed", minimum=0, maximum=1 << 48, below=True)
        self.training()

    def training(self) -> TrainSettings:
        """What the step that it shares with `staged train` reads."""
        return TrainSettings(
            init=self.init,
            data=(Subset(path=str(self.out / "rollouts")),),
            out=self.out,
            num_steps=self.iterations,
            pack_tokens=self.pack_tokens,
            packs_per_step=self.packs_per_step,
            timestep_shift=self.images.timestep_shift,
            noised_copies=self.images.noised_copies,
            dtype=self.dtype,
            device=self.device,
            num_threads=self.num_threads,
            activation_checkpointing=self.activation_checkpointing,
            max_logits_mib=self.max_logits_mib,
            freeze=self.freeze,
            lora=self.lora,
            seed=self.seed,
            parallel=self.parallel,
            # Rollouts are learned from as they were drawn, with all that they stood on.
            dropout=ConditionDropout(text=0.0, image=0.0),
            optimizer=self.optimizer,
            log=Log(trackers=self.trackers),
        )
