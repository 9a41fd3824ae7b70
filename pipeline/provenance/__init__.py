"""Where a row came from, and in which steps a record appeared.

Begin with where.py (the origin of rows, readable) and find.py (the steps of a record). records.py
finds the records that a user names, exclusions.py says which records a run excludes.
"""
