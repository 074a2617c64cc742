"""What every room of the package leans on and no user sees: shapes, temperatures, atomic files, states, JSON."""
