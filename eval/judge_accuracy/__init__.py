"""How often a judge of picture pairs agrees with a known preference."""
