"""The command that explores ideas, and its folder."""
