"""Data sets: one plugin per file; ``rows`` and ``images`` hold what several of them need."""
