"""The Riegeli format as ArrayRecord files use it: finding the bytes of records, and decoding them.

Begin with reading.py; chunks.py decodes many chunks at once, with NumPy. Written from the format's
specification (google/riegeli, doc/riegeli_records_file_format.md) and ArrayRecord's layout.proto.
"""
