"""Failover policy: paths that answer first, in the peer's order of preference; a reply is late after twice its usual time."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.failover import Answer, Mode_Passive, Path, PathState, Question, Timing

RANK = {PathState.UP: 0, PathState.SUSPECT: 1, PathState.UNVERIFIED: 2, PathState.DOWN: 3}


class Failover(exports.Failover):
    # Of the class: configure and decide are called on objects of their own.
    probe_interval_ms = 200

    def configure(self, config: list[tuple[str, str]]) -> None:
        for key, value in config:
            if key != "probe_interval_ms":
                raise Err(f"unknown key `{key}`; allowed keys are probe_interval_ms")
            if not value.isdecimal() or not 10 <= int(value) <= 60_000:
                raise Err(f"`probe_interval_ms` is `{value}`; it must be a whole number from 10 to 60000")
            Failover.probe_interval_ms = int(value)

    def decide(self, question: Question) -> Answer:
        try:
            order = sorted(range(len(question.paths)), key=lambda index: RANK[question.paths[index].state])
            timings = [timing(path, self.probe_interval_ms) for path in question.paths]
            return Answer(order=order, mode=Mode_Passive(), timings=timings)
        except Exception as error:  # An exception that gets out is shown as a trap, without its text.
            raise Err(repr(error)) from None


def timing(path: Path, probe_interval_ms: int) -> Timing:
    timeout = 100_000
    if path.rtt is not None:
        timeout = max(20_000, min(2 * path.rtt.smoothed_us + 4 * path.rtt.variance_us, 1_000_000))
    return Timing(
        probe_interval_us=1_000 * probe_interval_ms,
        reply_timeout_us=timeout,
        misses=3,
        # A path that keeps failing waits longer before it carries traffic again.
        hold_down_ms=min(5_000 * 2 ** min(path.flaps, 6), 300_000),
    )
