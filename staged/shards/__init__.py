"""Trajectories on disk: WebDataset tars with an index, a manifest and a data set card.

    folder/
      shard-000000.tar   <key>.json, <key>.0.png, <key>.1.png, … for one sample after another
      index.json         shards with their samples, bytes and sha256; written last
      offsets.json       where each sample lies, for random access
      manifest.json      settings fingerprints, counts, acceptance, cost
      README.md          the data set card

The same samples in the same order give the same bytes. Nothing read from a folder is trusted.
"""

from staged.shards.checks import Validation, damage, merge, stats, validate
from staged.shards.counts import Stats
from staged.shards.folder import Manifest, ShardEntry, read_index, read_manifest
from staged.shards.index import ShardIndex
from staged.shards.limits import Limits, ShardError, Skipped
from staged.shards.reader import Sample, read_shards
from staged.shards.writer import ShardWriter

__all__ = [
    "Limits",
    "Manifest",
    "Sample",
    "ShardEntry",
    "ShardError",
    "ShardIndex",
    "ShardWriter",
    "Skipped",
    "Stats",
    "Validation",
    "damage",
    "merge",
    "read_index",
    "read_manifest",
    "read_shards",
    "stats",
    "validate",
]
