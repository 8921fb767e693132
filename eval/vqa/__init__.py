"""How probable an answer about an image is, by the first token of a vision-language model.

`question` says what is asked, `local` asks a model in this process, `server` one behind an
OpenAI-compatible endpoint. GenEval 2 and VQAScore are built on it.
"""
