"""GenEval 2 (Kamath et al. 2025, arXiv 2512.16853): prompts of 3 to 10 atoms, and Soft-TIFA.

A prompt comes with questions about its atoms. A vision-language model answers each about the
image, and the probability of the right answer is the atom's score. `answers` holds them in a
file, `asking` fills it, `summary` makes a result of it. The headline is the geometric mean over a
prompt's questions, averaged over prompts.
"""
