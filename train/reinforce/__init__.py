"""Reinforcement after imitation: what scored well is drawn and decided more often.

Rollouts of the model itself, graded; flow matching toward good pictures and away from bad ones
(DiffusionNFT, arXiv:2509.16117), and a group-relative policy gradient for texts and decisions.
"""
