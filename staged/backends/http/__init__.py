"""One endpoint over HTTP, of whatever kind: asked within limits, read within bounds."""
