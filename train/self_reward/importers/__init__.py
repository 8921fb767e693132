"""Published data sets, read into prompts and examples."""
