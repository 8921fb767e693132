"""Settings of a fine-tune job."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from staged.model.lora_targets import Target
from staged.ranges import check_range
from staged.shards.streaming import Streaming, shown
from train.parts import PARTS, Part

MAX_LR_RATIO = 1000
MAX_NARROW_BETA = 0.99


Attention = Literal["auto", "blocks", "flex", "varlen"]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """One data set of the mixture."""

    path: str
    """Folder of shards, here or at an address: `https://…`, or `s3://…` and whatever else fsspec
    has (`pip install staged[s3]`)."""
    repeats: float = 1.0
    """Times each sample is seen an epoch; a fraction draws that share anew each epoch."""
    ce_weight: float = 1.0
    """What a supervised word of it counts beside one of the other data sets: with 2 as two of them,
    with 0 it is context alone. The run's `ce_weight` comes on top."""
    mse_weight: float = 1.0
    """The same of a supervised latent."""

    def __post_init__(self) -> None:
        """Check ranges."""
        object.__setattr__(self, "path", str(self.path))
        if not self.path:
            raise ValueError("path is empty; name a folder of shards, or its address")
        check_range(self, "repeats", minimum=0.001, maximum=1000)
        check_range(self, "ce_weight", "mse_weight", minimum=0, maximum=1000)
        if not (self.ce_weight or self.mse_weight):
            raise ValueError(
                f"ce_weight and mse_weight of {shown(self.path)} are 0, so that it teaches "
                "nothing; leave it out, or give one of them more"
            )


@dataclass(frozen=True, kw_only=True)
class ConditionDropout:
    """How often conditioning is left out, for guidance at sampling."""

    text: float = 0.1
    """Probability for the prompt, and for the plan before each sketch."""
    image: float = 0.1
    """Probability for each image in context; never where its inspection is supervised."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "text", "image", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW or Muon, warm-up, decay, clipping, averaging."""

    kind: Literal["adamw", "muon"] = "adamw"
    """`muon` takes the decoder's matrices and leaves the rest to AdamW."""
    states: Literal["float32", "bfloat16", "8bit"] = "float32"
    """In what AdamW keeps both moments of matrices: 8, 4 or 2 bytes a weight. `8bit` rounds to 256
    levels of the largest of 256 neighbours. Muon's momentum stays float32."""
    lr: float = 2e-5
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    min_lr_ratio: float = 0.05
    """Where the cosine ends, over the peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    momentum: float = 0.95
    """Muon's."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    lr_ratios: dict[str, float] = field(default_factory=dict)
    """Learning rates of parts over `lr`, such as `{vit: 0.1}`; 1 for those not named."""
    weight_decay: float = 0.0
    """Decoupled, on matrices only."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.9999
    """Averaging of weights, min(decay, (1 + n) / (10 + n)) at step n; 0 switches it off."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "lr", "eps", "max_grad_norm", minimum=0, above=True)
        check_range(self, "warmup_steps", "weight_decay", minimum=0)
        check_range(self, "min_lr_ratio", minimum=0, maximum=1)
        check_range(self, "ema_decay", "momentum", minimum=0, maximum=1, below=True)
        check_range(self, "betas", minimum=0, maximum=1, below=True)
        if self.states != "float32" and max(self.betas) > MAX_NARROW_BETA:
            raise ValueError(
                f"betas are {list(self.betas)} with states={self.states}: a moment that moves by "
                f"less than 1% a step is rounded back to what it was; give at most "
                f"{MAX_NARROW_BETA}, or states=float32"
            )
        for part, ratio in self.lr_ratios.items():
            if part not in PARTS:
                raise ValueError(f"lr_ratios names {part!r}; parts are {', '.join(PARTS)}")
            if not 0 < ratio <= MAX_LR_RATIO:
                raise ValueError(
                    f"lr_ratios has {part}: {ratio}; give more than 0 (freeze={part} trains none "
                    f"of it) and at most {MAX_LR_RATIO}"
                )


@dataclass(frozen=True, kw_only=True)
class LowRankSettings:
    """A LoRA of one expert: y = W x + (alpha / rank) B A x."""

    rank: int = 64
    """Inner size of the product."""
    alpha: float | None = None
    """Weight of the product, times its rank; null is the rank, so that the product counts once."""
    targets: tuple[Target, ...] = get_args(Target)
    """Which of a layer's linear layers."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "rank", minimum=1, maximum=4096)
        check_range(self, "alpha", minimum=0, above=True)
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets are {list(self.targets)}; name one or more, each once")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Thin matrices beside the decoder's, and nothing else, is trained; the rest stays as it is."""

    und: LowRankSettings | None = field(default_factory=LowRankSettings)
    """Of the expert that reads and writes; null leaves it as it is."""
    gen: LowRankSettings | None = field(default_factory=LowRankSettings)
    """Of the expert that draws; null leaves it as it is."""

    def __post_init__(self) -> None:
        """Check that something is trained."""
        if self.und is None and self.gen is None:
            raise ValueError("lora has neither und nor gen; give one, or lora: null for none")


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """A command that draws with the model as it stands, and says how good that is."""

    command: tuple[str, ...]
    """Its words, such as `[staged, eval, miniature, --checkpoint, "{checkpoint}", --out, "{out}",
    --json]`. `{checkpoint}` is the model (or its LoRA) with averaged weights, `{out}` a folder that
    goes afterwards. The last line that it prints must be JSON."""
    figure: str = "overall.value"
    """Number of that line, with dots between keys."""
    larger_is_better: bool = True
    """Otherwise the least is best."""
    max_minutes: float = 60.0
    """Time that it may take; all ranks wait."""

    def __post_init__(self) -> None:
        """Check that it draws with the model."""
        check_range(self, "max_minutes", minimum=0, above=True)
        if not self.command or not any("{checkpoint}" in word for word in self.command):
            raise ValueError(
                f"command is {list(self.command)}; name a command and, among its words, "
                '"{checkpoint}": it is to draw with the model as it stands'
            )


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """Losses on data that are held out, by the averaged weights.

    The same samples, noise and times at every step of every run, whatever its seed.
    """

    data: tuple[str, ...]
    """Folders of shards, or their addresses; none of them may be trained on."""
    every_steps: int = 500
    """Steps between measurements; one comes before the first step and one after the last."""
    max_samples: int = 256
    """Of the data, chosen once and for all; nothing is dropped from them."""
    noised_copies: int = 1
    """Noised copies of each of their supervised sketches."""
    scorer: ScorerSettings | None = None
    """What else is measured, as `validation/score`; it then decides which state is best."""
    keep_best: bool = False
    """Keep the state with the least loss, or the best score, besides the newest ones, and export it
    too in the end, to the folder `best`. A state is then written wherever a measurement is the best
    so far."""

    def __post_init__(self) -> None:
        """Check ranges."""
        object.__setattr__(self, "data", tuple(map(str, self.data)))
        if not self.data:
            raise ValueError("data is empty; name at least one folder of shards")
        check_range(self, "every_steps", "max_samples", "noised_copies", minimum=1)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a run shows of itself."""

    every_steps: int = 20
    """Steps between lines of `log.jsonl` and points of trackers, which are means over them."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """What shows figures and pictures besides: files for TensorBoard in `<out>/tensorboard`, and
    Weights & Biases (`pip install staged[wandb]`), which the environment's `WANDB_API_KEY`,
    `WANDB_PROJECT`, `WANDB_MODE=offline` and their like direct."""
    profile_steps: tuple[int, ...] = ()
    """Steps, counted from 1, that are traced: `<out>/profile` then has a file of each and of each
    rank for Perfetto, and on CUDA devices a snapshot of memory. Such steps are slow and large."""
    memory_history: bool = False
    """Keep who asks for memory of a CUDA device, at little cost, so that the snapshot says so which
    is left in `<out>/profile` when memory runs out."""
    sample_every_steps: int = 500
    """Steps between pictures from fixed prompts; 0 draws none."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts of those pictures; without any, none are drawn."""
    sample_flow_steps: int = 20
    """Network evaluations a picture."""
    sample_mode: Literal["one-shot", "staged"] = "one-shot"
    """`staged` takes each prompt through the whole loop, with the likeliest words, and leaves the
    trajectories in `<out>/samples` too; the picture shown is then the last of each."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "every_steps", "sample_flow_steps", minimum=1)
        check_range(self, "profile_steps", minimum=1)
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers are {list(self.trackers)}; name each once")
        check_range(self, "sample_every_steps", minimum=0)


@dataclass(frozen=True, kw_only=True)
class ParallelSettings:
    """How several processes (ranks) share one run; without torchrun or its like there is one."""

    replicas: int = 1
    """Copies of the model, each cut among an equal share of the ranks (HSDP): as many as machines
    keeps what layers exchange within each. 1 cuts it among all ranks (FSDP)."""
    reshard: bool = True
    """Give a layer's weights back between its forward and its backward pass: less memory, one more
    exchange."""
    join_timeout_s: float = 300.0
    """Seconds that ranks wait for all to come."""
    silence_timeout_s: float = 1800.0
    """Seconds that ranks wait for one another, within a step or while each writes its part of a
    state, before they give up."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "replicas", "join_timeout_s", "silence_timeout_s", minimum=1)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A fine-tune of BAGEL on trajectories: cross entropy on text, flow matching on images."""

    init: str
    """Checkpoint to start from: a folder, a Hub id, or `miniature:base|staged|fresh`."""
    data: tuple[Subset, ...]
    """The mixture."""
    out: Path
    """Folder of the run: checkpoints, log, pictures, resolved settings."""
    num_steps: int = 10_000
    """Optimizer steps."""
    max_minutes: float | None = None
    """Stop after training for so long, with the checkpoint of what was learned by then; the same
    command goes on."""
    pack_tokens: int = 33_000
    """Tokens of a packed batch, at most."""
    packs_per_step: int = 1
    """Packs whose gradients an optimizer step adds up, over all ranks together and on each of them
    one after the other: a larger batch in the memory of one pack. A token weighs the same in
    whichever of them it is."""
    ce_weight: float = 0.25
    """Weight of the text loss beside the image loss (method: lambda_CE)."""
    timestep_shift: float = 1.0
    """Bias of training times toward noise."""
    noised_copies: int = 1
    """Noised copies of each supervised sketch, with noise and time of their own, over one context:
    more pictures to learn from for each token of context."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of forward and backward; weights, gradients and moments stay float32. `auto` is
    bfloat16 where the device multiplies it fast, and in a run that goes on what it began in."""
    matmuls: Literal["as_dtype", "float8", "float8_emulated"] = "as_dtype"
    """Products of the decoder's layers, forward and backward, in `dtype`, or rounded to float8 by
    torchao (`pip install staged[float8]`) on GPUs that multiply it, such as an H100; meant for
    `compile=true` and long packs, and not measured yet. `float8_emulated` rounds alike on any
    device, slowly, to try what that does to losses. What is kept and exported is as wide as
    without."""
    device: str = "auto"
    """Torch device; `auto` is a CUDA device where there is one, or the CPU."""
    num_threads: int = 0
    """CPU threads of torch; 0 leaves its own choice. A CPU run repeats bit by bit only with the
    same number."""
    num_workers: int = 1
    """Processes that build packs ahead; 0 builds them in between. The result is the same."""
    compile: bool = False
    """Fuse the experts' pointwise parts with torch.compile (needs a C++ compiler on a CPU): about
    1.5 times as fast for the miniature, 1.06 times with 100 million weights on a CPU; and a
    different rounding, so a run must keep to one choice."""
    attention: Attention = "auto"
    """Kernel of the decoder's attention. `flex` (torch's, compiled) and `varlen` (flash-attn's if
    it is there, `pip install staged[flash]`, else torch's own) compute on CUDA devices nothing that
    no token may see; `blocks` runs anywhere. `auto` is the first of them that the device has and
    whose gradients are right there, which is tried before the first step, and said."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What a layer keeps for its backward pass: everything; what matrix products and attention
    gave; or its input alone, for a third more work. Gradients are the same."""
    max_logits_mib: int = 1024
    """MiB of float32 logits that stand at a time; the head's cross entropy is computed in pieces
    where they are more, and each piece made again for its gradient."""
    freeze: tuple[Part, ...] = ()
    """Parts that stay as they are: `und`, `gen` (experts), `vit`, `connector`, `latents`, `words`.
    They have no gradients, moments or average; `[und, vit, connector, words]` trains what draws."""
    lora: LoraSettings | None = None
    """Train a LoRA instead of the weights: `{}` for the defaults. The run's result is a folder
    `adapter` in PEFT's format, which `--checkpoint` and `init` take like any checkpoint."""
    seed: int = 0
    """Of data order, dropout, times and noise."""
    deterministic: bool = False
    """Compute with kernels that repeat bit by bit on a GPU too (cuBLAS with workspaces of its own,
    sums in a fixed order), which are slower; an operation that has none is an error. A CPU repeats
    anyway."""
    cache: Path | None = None
    """Folder for latents and lengths, to share among runs; `<out>/cache` by default."""
    streaming: Streaming = field(default_factory=Streaming)
    """Data sets that are addresses."""
    checkpoint_every_steps: int = 500
    """Steps between resumable checkpoints."""
    keep_checkpoints: int = 2
    """Newest of them that are kept."""
    validation: ValidationSettings | None = None
    """Losses on held-out data, as `validation/...` beside the others."""
    dropout: ConditionDropout = field(default_factory=ConditionDropout)
    """Conditioning dropout."""
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    """Several processes."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """Optimizer."""
    log: Log = field(default_factory=Log)
    """Progress."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.data:
            raise ValueError("data is empty; name at least one folder of shards")
        check_range(
            self,
            *(
                "num_steps",
                "pack_tokens",
                "packs_per_step",
                "checkpoint_every_steps",
                "keep_checkpoints",
                "noised_copies",
                "max_logits_mib",
            ),
            minimum=1,
        )
        if self.lora is not None and self.freeze:
            raise ValueError(
                "freeze has no meaning with lora, which trains no weight of the model; "
                "lora.und=null or lora.gen=null leaves an expert as it is"
            )
        if self.lora is not None and self.matmuls != "as_dtype":
            raise ValueError(
                f"matmuls={self.matmuls} is of the model's own layers, beside which lora puts its "
                "own; leave it at as_dtype with lora"
            )
        if set(self.freeze) == set(PARTS):
            raise ValueError("freeze names every part; leave at least one to train")
        for part in self.optimizer.lr_ratios:
            if reason := self._untrained(part):
                raise ValueError(
                    f"optimizer.lr_ratios names {part}, of which nothing is trained: {reason}; "
                    f"leave {part} out of lr_ratios, or train it"
                )
        check_range(self, "ce_weight", "num_threads", "num_workers", minimum=0)
        check_range(self, "timestep_shift", "max_minutes", minimum=0, above=True)
        check_range(self, "seed", minimum=0, maximum=1 << 63, below=True)

    def _untrained(self, part: str) -> str:
        """Why nothing of a part is trained; empty where something is."""
        if self.lora is None:
            return f"freeze={part} leaves it as it is" if part in self.freeze else ""
        if part not in ("und", "gen"):
            return "lora trains matrices of its own beside und and gen alone"
        return f"lora.{part} is null" if getattr(self.lora, part) is None else ""

    @property
    def cache_folder(self) -> Path:
        """Where latents and lengths are kept."""
        return self.cache or self.out / "cache"
