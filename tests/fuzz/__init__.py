"""Damaged files: whatever is wrong with them, the error is ours and names the file, soon."""
