"""Players of the roles: BAGEL, any OpenAI-compatible model, any diffusers editor."""
