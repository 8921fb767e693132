"""Images that nobody is paid for, in the ledger beside those that were bought."""

import hashlib

from staged.jobs.ledger import Ledger, unit_key


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
