"""What the benchmarks share. Standard library only, so that measuring disturbs little."""
