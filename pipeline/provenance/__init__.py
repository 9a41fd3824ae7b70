"""Where a row came from, and in which steps a record appeared.

Begin with where.py (rows for people) and find.py (the steps of a record). records.py reads what
people name records by, exclusions.py says which records a run excludes.
"""
