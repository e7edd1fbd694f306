"""Reports: each renders the same `Report`, and none computes anything."""
