"""The command that draws prompts, and the folder that it keeps them in."""
