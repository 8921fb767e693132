"""Fine-tune jobs."""
