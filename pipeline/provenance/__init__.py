"""Where a row came from, and in which steps a record appeared.

Begin with where.py.
"""
