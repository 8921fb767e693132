"""Ideas, texts with images between them, and what exploring one came to; without torch."""
