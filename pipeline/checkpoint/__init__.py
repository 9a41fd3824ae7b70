"""What is saved: the state of a loader, and how the parts of several hosts become one.

Begin with position.py, where a loader stands; state.py writes it as plain data and reads it back.
files.py takes it from where others kept it, and orbax.py hands it to Orbax. mixture.py says which
parts of a mix may change on a resume.
"""

from pipeline.checkpoint.merging import merge

__all__ = ["merge"]
