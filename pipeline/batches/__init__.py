"""Which rows make a batch, and where a run stands.

Begin with streams/take.py.
"""
