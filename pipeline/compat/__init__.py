"""Lockstep inside of other people's trainers: one file each, which imports that trainer.

Nothing here is imported by the rest of the package. In all of them a batch size is the global one,
and a run may go on with another number of processes: the global batches stay the same.
"""
