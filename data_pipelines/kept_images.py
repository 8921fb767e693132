"""Images in the ledger: what they are called, and those that nobody is paid for."""

import hashlib

from staged import images
from staged.jobs.ledger import Ledger, unit_key
from staged.trajectory import ImageRef


def named_image(image: bytes) -> ImageRef:
    """Name an encoded image by its hash: under it the ledger gives its bytes back."""
    return ImageRef(png=image, name=f"{hashlib.sha256(image).hexdigest()}.{images.probe(image)[0]}")


async def keep_image(image: bytes, ledger: Ledger, *, purpose: str) -> None:
    """Keep an image once, under its hash; on the disk when this returns.

    Args:
        image: Encoded bytes.
        ledger: Of the job.
        purpose: Under which it is counted.
    """
    digest = hashlib.sha256(image).hexdigest()
    key = unit_key(purpose, digest)
    async with ledger.claim(key):
        if ledger.find_blob(digest) is None:
            await ledger.record(key, "images", purpose, paid=True, usd=0.0, data={}, blob=image)
