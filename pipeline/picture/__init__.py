"""What a dataset looks like: its sources, joins and stages as a graph.

Begin with graph.py, what is drawn; text.py, svg.py draw it.
"""

from pipeline.picture.graph import Box, boxes_of
from pipeline.picture.html import escaped, page, table
from pipeline.picture.picture import Picture

__all__ = ["Box", "Picture", "boxes_of", "escaped", "page", "table"]
