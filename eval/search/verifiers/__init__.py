"""Who can rate pictures; `opening` makes one from its settings, the others are one kind each."""
