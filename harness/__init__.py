"""The reference trainer: a sharded transformer that resumes, and proves, bit for bit."""
