"""Where the parts of a checkpoint lie, and what they say before any weight is read.

A folder holds ``config.json``, ``llm_config.json``, ``vit_config.json``, ``ema.safetensors`` (or
whatever else `staged.model.stored_weights` finds), ``ae.safetensors`` and the tokenizer's files.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from staged import proxies
from staged.model.config import BagelConfig
from staged.model.config_files import CONFIG_FILES, read_config
from staged.model.fitted_config import autoencoder_structure, fit_to_weights
from staged.model.flows import Flows, read_flows
from staged.model.stored_weights import AUTOENCODER, StoredWeights

_HUB_FILES = ("*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model", "*.jinja")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a checkpoint says of itself before its weights are read.

    Attributes:
        config: Dimensions, corrected by what the headers of the weights show.
        flows: How its pictures are drawn.
    """

    config: BagelConfig
    flows: Flows


@dataclass(frozen=True, kw_only=True)
class CheckpointFolders:
    """Where the parts of a checkpoint lie.

    Attributes:
        weights: Of the model.
        autoencoder: ``ae.safetensors``, if not beside the weights: models that share one need not
            each carry it.
        rest: Configuration, tokenizer and ways of drawing, if not beside the weights.
    """

    weights: Path
    autoencoder: Path
    rest: Path

    def require(self) -> None:
        """Require the small files to be there, which many a trainer does not copy.

        Raises:
            ValueError: Some are missing; names them.
        """
        needed = {self.rest / name for name in CONFIG_FILES} | {self.autoencoder / AUTOENCODER}
        if missing := sorted(str(path) for path in needed if not path.is_file()):
            raise ValueError(
                f"{self.weights} holds weights, but {', '.join(missing)} missing: take what is "
                "missing from the checkpoint that they were trained from (staged export "
                f"{self.weights} --like CHECKPOINT --out FOLDER)"
            )

    def look(self) -> Facts:
        """Read what needs no weights.

        Raises:
            ValueError: See ``load``; names and shapes of the tensors are not compared here.
        """
        shapes = StoredWeights.find(self.weights).shapes
        self.require()
        config = read_config(self.rest)
        path = self.autoencoder / AUTOENCODER
        stored = StoredWeights.of_autoencoder(path).shapes
        structure = autoencoder_structure(stored, config.autoencoder, path)
        return Facts(config=fit_to_weights(config, structure, shapes), flows=read_flows(self.rest))


def folders_of(
    source: str | Path, *, autoencoder_folder: str | Path | None = None, revision: str | None = None
) -> CheckpointFolders:
    """Find a checkpoint; from the Hub, all of it is fetched. See ``load``."""
    folder = _resolve(source, revision)
    autoencoder = folder if autoencoder_folder is None else Path(autoencoder_folder)
    return CheckpointFolders(weights=folder, autoencoder=autoencoder, rest=folder)


def look(source: str | Path, *, autoencoder_folder: str | Path | None = None) -> Facts:
    """Read what needs no weights, so that a wrong request is told before minutes of loading.

    Args:
        source: See ``load``; from the Hub, the whole checkpoint is fetched.
        autoencoder_folder: See ``load``.

    Raises:
        ValueError: See ``load``; names and shapes of the tensors are not compared here.
    """
    return folders_of(source, autoencoder_folder=autoencoder_folder).look()


def _resolve(source: str | Path, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        raise ValueError(f"{source} is neither a checkpoint folder nor a Hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(str(source), revision=revision, allow_patterns=list(_HUB_FILES))
    except (OSError, ValueError) as error:  # the Hub's errors are among these
        said = " ".join(str(error).split()) + proxies.blamed("https://huggingface.co")
        raise ValueError(
            f"{source} is no folder here and did not come from the Hub: {said}"
        ) from error
    return Path(path)
