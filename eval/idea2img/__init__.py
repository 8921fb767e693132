"""Idea2Img on the miniature world's ideas, with the detector as judge."""
