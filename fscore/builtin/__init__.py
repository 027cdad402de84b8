"""What the kernel offers by default, registered through the same hooks as any plugin."""
