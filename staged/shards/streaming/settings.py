"""How data that are elsewhere are fetched and kept."""

from dataclasses import dataclass
from pathlib import Path

from staged.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """How data sets that are addresses are fetched, and how much of them is kept."""

    folder: Path | None = None
    """Folder of a local disk for what was fetched, which all processes of a machine share; without
    one it is `streamed` in the folder of latents and lengths."""
    max_gib: float = 50.0
    """GiB kept there; beyond, what was not read for longest goes. What is being read stays."""
    connections: int = 8
    """Samples of a pack that each process which builds packs fetches at a time."""
    timeout_s: float = 60.0
    """Seconds without progress after which a connection is given up and made again."""
    attempts: int = 8
    """Times in a row that a part is asked for in vain before the run stops."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "max_gib", "timeout_s", minimum=0, above=True)
        check_range(self, "connections", "attempts", minimum=1, maximum=256)
