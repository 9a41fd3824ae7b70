"""Which record stands at which row, and which rows make batch k. Arithmetic only; nothing is read.

Begin with order.py (the interface), and shuffle.py and slice.py, two orders. passes.py cuts epochs
into batches; schedule.py, pattern.py and splits.py say which dataset of a mix gives each row.
"""
