"""Self-sampled critiques: what a checkpoint plans and draws itself, judged and put right."""
