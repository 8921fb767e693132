"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): objects, counts, colours and positions.

`prompt` is what an image must show, `scoring` decides whether it does from detections, and
`summary` turns verdicts into a result. None of it needs torch.
"""
