"""`staged eval report`: results of one benchmark as one web page that needs no network.

`samples` reads what each image got, and why; `runs` puts a result, its samples and its pictures
together; `scores`, `process` and `galleries` make sections of them, `page` the whole.
"""

from eval.report.command import main

__all__ = ["main"]
