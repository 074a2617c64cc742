"""What every room of the package leans on and no user sees: shapes, precision, atomic files, states, JSON."""
