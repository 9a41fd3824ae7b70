"""Bytes: files, ranges of them, local or behind a URL, and what is kept of them.

Begin with storage.py (what sources call) and files.py (which files a source has).
"""
