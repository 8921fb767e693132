"""The looped generator: KV cache, growing contexts, batched decoding and flow."""
