"""Train the miniature world's autoencoder: 48-pixel scenes to 12 x 12 x 4 latents and back.

`python -m train.autoencoder configs/shapes/autoencoder.yaml num_threads=2`

A variational autoencoder with a small KL term, whose decoder also sees latents with extra noise:
what a flow model draws is never exactly on the encoder's manifold, and the picture must survive
that. Everything random in a step follows from the seed and the step's number, so a run that was
killed goes on from its last checkpoint and ends with the same bits.
"""
