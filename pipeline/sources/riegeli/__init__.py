"""The Riegeli layout as ArrayRecord files use it: which bytes a record needs, and what they hold.

Written from the format's specification (google/riegeli, doc/riegeli_records_file_format.md) and
ArrayRecord's layout.proto. Many chunks are taken apart at once, by arithmetic on arrays.
"""
