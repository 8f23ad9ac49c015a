"""HTTP libraries behind one seam. Each module moves bytes and decides nothing."""
