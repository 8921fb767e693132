"""Looking at pictures of the miniature world: from pixels to shapes, and what they show."""
