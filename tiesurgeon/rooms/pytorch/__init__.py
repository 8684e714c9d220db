"""PyTorch: what its files hold, how they are tied, and models written as readable code."""
