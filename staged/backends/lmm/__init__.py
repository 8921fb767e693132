"""Language models behind OpenAI's API: the client, its types, and what they look like as bytes."""
