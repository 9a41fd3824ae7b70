"""Which component of a mix gives each row where a weight is too small for a table of a round.

The live components are the leaves of a Huffman tree: the two lightest of what is left come
together, again and again. Of a node's first n rows its left side has its exact share of n, rounded
to the nearest row, so any row of any pattern costs one division a level, and no table.

Bound: a node of weight W whose rows stand e rows off gives a side of weight w at most
e w / W + 1/2. So a leaf stands at most (1 + w / W1 + w / W2 + …) / 2 rows off, where W1, W2, … are
the weights of the nodes above it, without the root. From the second step up a Huffman tree's
weights grow as the Fibonacci numbers do (w, w, 2 w, 3 w, 5 w, …), whose inverses add up to 3.36:
every prefix is within 1.7 rows of its share, and of two components within half a row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.block import Int64s

MOST = 1 << 30  # what weights may add up to: a product of two of them is an exact int64
Weights = tuple[int, ...]


class _Node(NamedTuple):
    # what stands at a node's two sides: a node's number, or ~component
    left: int
    right: int
    weight: int
    left_weight: int
    offset: int  # a share of n rows is (n left_weight + offset) // weight, within 0 and n

    def lefts(self, n: int) -> int:
        return min(n, max(0, (n * self.left_weight + self.offset) // self.weight))

    def before(self, side: int, rank: int) -> int:
        # the node's row that is a side's rank-th
        if side == self.left:
            first = -((self.offset - (rank + 1) * self.weight) // self.left_weight)
            return max(first, rank + 1) - 1
        return max((rank * self.weight + self.offset) // (self.weight - self.left_weight), rank)


class Splits:
    """Rows as they are dealt under one set of weights, by arithmetic.

    Args:
        weights: integers that add up to at most 2**30.
        debts: what each component is owed before the first row, in units of a row.
        unit: of the debts, so many to a row.

    >>> splits = Splits((9_999_999, 1), (0, 0), 1)
    >>> splits.before(10**9).tolist(), splits.find(1, 99, 10**12)
    ([999999900, 100], 994999999)
    """

    def __init__(self, weights: Weights, debts: Weights, unit: int) -> None:
        self._components = len(weights)
        self._nodes = list(_tree(weights, debts, unit))  # the root last
        self._root = len(self._nodes) - 1 if self._nodes else ~_only(weights)
        self._above = {side: i for i, n in enumerate(self._nodes) for side in (n.left, n.right)}
        table = np.array(self._nodes or np.zeros((0, 5)), np.int64)
        self._left, self._right, self._weight, self._left_weight, self._offset = table.T

    def at(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The component of each row, and its rank among that component's rows."""
        which, rank = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        todo, node, n = np.arange(len(rows)), np.full(len(rows), self._root), rows
        while True:
            down = node >= 0
            if not down.all():
                leaf = ~down
                which[todo[leaf]], rank[todo[leaf]] = ~node[leaf], n[leaf]
                todo, node, n = todo[down], node[down], n[down]
            if not len(todo):
                return which, rank
            node, n = self._down(node, n)

    def _down(self, node: Int64s, n: Int64s) -> tuple[Int64s, Int64s]:
        # the side that has each node's n-th row, and its rank among that side's
        weight, left_weight = self._weight[node], self._left_weight[node]
        turn, rest = np.divmod(n, weight)
        share, over = np.divmod(rest * left_weight + self._offset[node], weight)
        share += turn * left_weight
        after = share + (over + left_weight >= weight)
        lefts = np.clip(share, 0, n)
        goes_left = np.clip(after, 0, n + 1) > lefts
        side = np.where(goes_left, self._left[node], self._right[node])
        return side, np.where(goes_left, lefts, n - lefts)

    def before(self, row: int) -> Int64s:
        """int64[components]: rows of each before a row."""
        found = np.zeros(self._components, np.int64)
        given = {self._root: row}
        for i in range(len(self._nodes) - 1, -1, -1):
            node, n = self._nodes[i], given.pop(i)
            given[node.left] = node.lefts(n)
            given[node.right] = n - given[node.left]
        for leaf, n in given.items():
            found[~leaf] = n
        return found

    def find(self, component: int, rank: int, most: int) -> int:
        """The row of a component's rank-th row; `most` if it comes no earlier."""
        side, row = ~component, rank
        while side != self._root:
            if side not in self._above:
                return most
            above = self._above[side]
            side, row = above, self._nodes[above].before(side, row)
        return min(most, row)


def _only(weights: Weights) -> int:
    return next(c for c, weight in enumerate(weights) if weight)


def _tree(weights: Weights, debts: Weights, unit: int) -> Iterator[_Node]:
    # of equal weights those come together first whose least component comes first
    heap = [(w, c, ~c, debts[c]) for c, w in enumerate(weights) if w]
    heapq.heapify(heap)
    number = 0
    while len(heap) > 1:
        left_weight, c, left, left_debt = heapq.heappop(heap)
        right_weight, other, right, right_debt = heapq.heappop(heap)
        weight, debt = left_weight + right_weight, left_debt + right_debt
        # half a row, and what the left side is owed beyond its share of what the node is owed
        owed = left_debt * weight - debt * left_weight
        yield _Node(left, right, weight, left_weight, (weight * unit + 2 * owed) // (2 * unit))
        heapq.heappush(heap, (weight, min(c, other), number, debt))
        number += 1
