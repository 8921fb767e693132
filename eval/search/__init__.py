"""Search at test time: several candidates of a picture, a verifier that rates them, the best kept.

`settings` says how, without torch; `verifier` is who rates, `verifiers` makes one from its
settings, and `best_of` draws with any generator. What is searched with is counted: the flow steps
of every candidate are the picture's. A verifier that is also the judge makes an upper bound, and
results say so.
"""
