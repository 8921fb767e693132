"""The miniature world: scenes, renderer, detector, language, and players for every role."""
