"""How bytes are read and written: local files, URLs, byte ranges, and the cache on disk.

Begin with storage.py (the interface that sources call) and files.py (the files of one source).
"""
