"""Run by stock PyTorch in a process of its own: imports nothing else of tiesurgeon."""
