"""Which rows make a batch, for which host, and how they are stacked.

Begin with stream.py, what a stream of batches answers. indexed.py and streamed.py are the two there
are, opening.py chooses between them, and run.py makes batches ahead of the loop.
"""
