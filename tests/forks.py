"""Processes that have imported everything when they begin: forks of a server that did so once."""

import multiprocessing

forks = multiprocessing.get_context("forkserver")
# There is one server for all: what it lacks, each of its hundreds of processes imports anew.
forks.set_forkserver_preload(
    [
        "data_pipelines.__main__",
        "data_pipelines.plan_sketch.job",
        "httpx",
        "openai",
        "pytest",
        "torch._dynamo",  # which optimizers import in their first step
        "train.job",
        "uvicorn",
    ]
)
