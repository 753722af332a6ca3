"""Assignment policy: consistent hashing (Karger et al., STOC 1997).

Every live node owns points on a ring; a duty starts at a point of its own and goes to the nodes that follow, the first
of them its primary. A node that leaves gives away its own duties only. Trade-off: shares differ by about 1 in the square
root of `points`; more points balance better and cost more time.
"""

from bisect import bisect_left
from hashlib import blake2b

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.assignment import Answer, Question
from wit_world.imports import log


def hashed(text: str) -> int:
    """The same on every member: Python's own `hash` is not."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Assignment(exports.Assignment):
    # Of the class: configure and decide are called on objects of their own.
    points = 32

    def configure(self, config: list[tuple[str, str]]) -> None:
        for key, value in config:
            if key != "points":
                raise Err(f"unknown key `{key}`; allowed keys are points")
            if not value.isdecimal() or not 1 <= int(value) <= 1000:
                raise Err(f"`points` is `{value}`; it must be a whole number from 1 to 1000")
            Assignment.points = int(value)

    def decide(self, question: Question) -> Answer:
        try:
            return plan(question, self.points)
        except Exception as error:  # An exception that gets out is shown as a trap, without its text.
            raise Err(repr(error)) from None


def plan(question: Question, points: int) -> Answer:
    ring = sorted(
        (hashed(f"{node.id}/{point}"), index)
        for index, node in enumerate(question.nodes)
        if node.live
        for point in range(points)
    )
    log.write(log.Level.DEBUG, f"a ring of {len(ring)} points")
    rings: dict[tuple[tuple[str, str], ...], list[tuple[int, int]]] = {}
    owners = []
    for duty in question.responsibilities:
        requires = tuple(duty.requires)
        if requires not in rings:
            eligible = [all(pair in node.attributes for pair in requires) for node in question.nodes]
            rings[requires] = [place for place in ring if eligible[place[1]]]
        owners.append(followers(rings[requires], hashed(duty.name), duty.replicas))
    return Answer(owners)


def followers(ring: list[tuple[int, int]], start: int, wanted: int) -> list[int]:
    """The first nodes from `start` on, each once."""
    found: list[int] = []
    first = bisect_left(ring, (start, 0))
    for step in range(len(ring)):
        node = ring[(first + step) % len(ring)][1]
        if node not in found:
            found.append(node)
            if len(found) == wanted:
                break
    return found
