"""Which rows make a batch: a stream for indexed datasets, another for counted ones.

Begin with stream.py; opening.py says which stream a loader reads.
"""
