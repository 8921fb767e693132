"""Generate once, score many times: a benchmark's prompts, a generator, images on disk.

`benchmarks` says what is drawn and where a scorer looks for it, `generator` what a generator is
(`model`, `pipeline`, `endpoint` and `existing` are ours), `store` keeps what was drawn, and `run`
brings them together, in one process or in many (`staged.jobs.rank`).
"""
