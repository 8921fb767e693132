"""What there is in the miniature world: scenes, how they are drawn, and what is kept unseen."""
