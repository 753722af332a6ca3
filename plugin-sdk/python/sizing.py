"""Sizing policy: the largest datagram that both adapters and the path carry, in bursts of a fixed number of datagrams."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.sizing import Answer, Question

MIN_DATAGRAM = 1_200
MAX_DATAGRAM = 65_507
MAX_BURST = 1_048_576


class Sizing(exports.Sizing):
    # Of the class: configure and decide are called on objects of their own.
    datagrams = 32

    def configure(self, config: list[tuple[str, str]]) -> None:
        for key, value in config:
            if key != "datagrams":
                raise Err(f"unknown key `{key}`; allowed keys are datagrams")
            if not value.isdecimal() or not 1 <= int(value) <= 64:
                raise Err(f"`datagrams` is `{value}`; it must be a whole number from 1 to 64")
            Sizing.datagrams = int(value)

    def decide(self, question: Question) -> Answer:
        try:
            return sizes(question, self.datagrams)
        except Exception as error:  # An exception that gets out is shown as a trap, without its text.
            raise Err(repr(error)) from None


def sizes(question: Question, datagrams: int) -> Answer:
    mtu = min(question.local.mtu, question.remote.mtu)
    if question.path_mtu is not None:
        mtu = min(mtu, question.path_mtu)
    datagram = max(MIN_DATAGRAM, min(mtu - question.overhead, MAX_DATAGRAM))
    return Answer(datagram=datagram, coalesce=datagram, burst=min(datagrams * datagram, MAX_BURST))
