"""Lockstep in other people's trainers: one file for each, which imports that trainer.

Nothing here is imported by the rest of the package. Batch sizes given to these files are global,
except that of torch_dataloader.py. A run may resume on another number of processes with the same
global batches.
"""
