"""Work of many processes, on one machine or several: what they keep, share and never do twice."""
