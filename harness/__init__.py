"""The reference trainer: a sharded transformer whose runs resume and replay bit for bit.

Begin with train.py (the loop), assembly.py (what a run is made of) and step.py (one step).
"""
