"""BAGEL: configuration, sequence layout, transformer, vision, autoencoder, flow, checkpoints."""
