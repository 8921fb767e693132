"""Published weights into the layouts that evaluation reads; used once, and apart from scoring."""
