"""Data sets that stay where they are: samples fetched when they are wanted, and kept for a while.

A run reads samples in an order that no shard has, so that whole shards would be fetched again and
again. What is fetched and kept is therefore the part of a shard that a sample is.
"""

from staged.shards.streaming.remote import RemoteError, is_remote, shown
from staged.shards.streaming.settings import Streaming
from staged.shards.streaming.shards import RemoteShards

__all__ = ["RemoteError", "RemoteShards", "Streaming", "is_remote", "shown"]
