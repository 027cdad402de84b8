"""Executors that the kernel offers: `serial`, the reference, and `process`."""
