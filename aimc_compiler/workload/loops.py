"""Loops of operations or tasks: the strongly connected components of what needs what.

(Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1, 146 (1972).)
"""

from collections.abc import Sequence


def components(needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Nodes that need each other, directly or through others, together; every component behind those it needs.

    needs: the nodes that each node needs. The nodes of a component are in ascending order.

    >>> components([[2], [], [0, 1]])
    [[1], [0, 2]]
    """
    search = _Search(needs)
    for node in range(len(needs)):
        if search.number[node] < 0:
            search.visit(node)
    return search.found


class _Search:
    """The depth-first search, with a stack of its own: programs are deeper than Python's."""

    def __init__(self, needs: Sequence[Sequence[int]]) -> None:
        self.needs = needs
        self.found: list[list[int]] = []
        #: Order of discovery; the least number reachable by one edge out of the subtree; whether still open.
        self.number, self.low = [-1] * len(needs), [0] * len(needs)
        self.open = [False] * len(needs)
        self._path: list[int] = []
        self._count = 0

    def visit(self, root: int) -> None:
        """Finds the components of everything that ``root`` needs and that was not visited yet."""
        self._enter(root)
        stack = [(root, iter(self.needs[root]))]
        while stack:
            node, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                if stack:
                    parent = stack[-1][0]
                    self.low[parent] = min(self.low[parent], self.low[node])
                if self.low[node] == self.number[node]:
                    self._close(node)
            elif self.number[following] < 0:
                self._enter(following)
                stack.append((following, iter(self.needs[following])))
            elif self.open[following]:
                self.low[node] = min(self.low[node], self.number[following])

    def _enter(self, node: int) -> None:
        self.number[node] = self.low[node] = self._count
        self._count += 1
        self.open[node] = True
        self._path.append(node)

    def _close(self, node: int) -> None:
        members = [self._path.pop()]
        while members[-1] != node:
            members.append(self._path.pop())
        for member in members:
            self.open[member] = False
        self.found.append(sorted(members))
