"""How parameters learn: one rule per file."""
