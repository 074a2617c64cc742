"""Damaged input by the thousand: what is read is right, what is refused is refused in words, and nothing is lost."""
