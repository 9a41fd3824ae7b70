"""Which row stands where, and which rows make batch k: arithmetic alone, nothing is read.

Begin with order.py, what an order answers; shuffle.py and slice.py are two of them. passes.py cuts
epochs into batches; schedule.py and pattern.py say which dataset of a mix gives each row.
"""
