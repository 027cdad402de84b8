"""fscore: a federated learning platform in which everything but the kernel is a plugin."""
