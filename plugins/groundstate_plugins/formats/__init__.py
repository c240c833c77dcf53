"""File formats that inputs are read from and codes written to."""
