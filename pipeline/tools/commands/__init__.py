"""What can be asked of a pipeline from a shell: one command a file."""
