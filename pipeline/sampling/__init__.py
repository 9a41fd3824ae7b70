"""Which row stands where, and which rows make batch k: arithmetic alone, nothing is read.

Begin with order.py, what an order answers; shuffle.py and slice.py are two of them. passes.py cuts
epochs into batches. Which dataset of a mix gives each row, schedule.py, pattern.py, dealing.py and
splits.py say.
"""
