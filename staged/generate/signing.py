"""Pictures signed with the operator's key, as C2PA has it.

The manifest in a signed PNG says who vouches for it (the certificate), that a model drew it, and
that nothing was changed since. What the picture carries beside that stays as it is.
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

import staged
from staged import images
from staged.ranges import check_choices
from staged.trajectory import Sketch, Step, Trajectory

Algorithm = Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
_MANIFEST: Final = {
    "claim_generator_info": [{"name": "staged", "version": staged.__version__}],
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {
                "actions": [
                    {
                        "action": "c2pa.created",
                        "digitalSourceType": (
                            "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
                        ),
                    }
                ]
            },
        }
    ],
}


@dataclass(frozen=True, kw_only=True)
class SigningSettings:
    """With what pictures are signed."""

    certificate: Path
    """PEM file: the operator's certificate, then those that vouch for it."""
    key: Path
    """PEM file of its private key (PKCS#8, without a password), read once and shown nowhere."""
    algorithm: Algorithm = "es256"
    """Of the key."""

    def __post_init__(self) -> None:
        """Check the algorithm.

        Raises:
            ValueError: It is none of those.
        """
        check_choices(self, algorithm=Algorithm)


class PictureSigner:
    """Signs PNGs; for any number of threads."""

    def __init__(self, settings: SigningSettings) -> None:
        """Read key and certificate, and try them.

        Args:
            settings: Where they are.

        Raises:
            ValueError: The library is missing, a file cannot be read, or they do not sign.
        """
        try:
            import c2pa
        except ModuleNotFoundError as error:
            raise ValueError(
                f"sign: pictures are signed with {error.name}; run `pip install staged[c2pa]`"
            ) from None
        found = [
            _read(path, name)
            for name, path in (("certificate", settings.certificate), ("key", settings.key))
        ]
        self._c2pa: Any = c2pa
        self._lock = threading.Lock()
        try:
            # No preview of a picture within itself.
            self._context = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
            self._signer = c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(settings.algorithm.encode(), *found, None)
            )
            self.sign(images.encode_png(np.zeros((8, 8, 3), np.uint8)))
        except c2pa.C2paError as error:
            raise ValueError(
                f"sign: {settings.key} and {settings.certificate} sign nothing with "
                f"{settings.algorithm}: {error}; give a certificate for signing documents with "
                "those above it, and its own key, both PEM (docs/generate.md)"
            ) from None

    def sign(self, png: bytes) -> bytes:
        """Sign a PNG; another image is given back as it is."""
        if images.probe(png)[0] != "png":
            return png
        signed = io.BytesIO()
        with self._lock:
            builder = self._c2pa.Builder(_MANIFEST, self._context)
            builder.sign(self._signer, "image/png", io.BytesIO(png), signed)
        return signed.getvalue()

    def sign_sketches(self, trajectory: Trajectory) -> Trajectory:
        """Sign every picture that was drawn in a trajectory; they are loaded."""
        steps = list[Step]()
        for step in trajectory.steps:
            if isinstance(step, Sketch):
                signed = self.sign(step.image.loaded)
                step = replace(step, image=replace(step.image, png=signed))
            steps.append(step)
        return replace(trajectory, steps=tuple(steps))


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"sign.{name}: {path}: {error.strerror}") from None
