"""Rewards: scores of an image and its prompt by a network that learnt what people prefer.

CLIPScore, PickScore, the LAION aesthetic score, HPS v2.1 and VQAScore, as thin scorers on
transformers. Their scales differ, so each gives a result of its own; `kinds` lists them.
"""
