//! What the two ends tell each other of their counts of cluster datagrams; the engine says why.

use alloc::boxed::Box;
use alloc::vec::Vec;

use overlan_wire::Frame;
use overlan_wire::frame::FRAME_HEADER;

use super::Peer;
use crate::crypto::Aead;
use crate::time::Instant;

/// What is to be told, and what came. There is none but where datagrams of the peer's name were refused.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The highest number that came, for the peer to say whether it is its own.
    ask: Option<u64>,
    /// The number that the peer asked about and this end did not send, and the next that it will send.
    tell: Option<(u64, u64)>,
    /// What the peer asks.
    asked: Option<u64>,
    /// What the peer tells.
    told: Option<(u64, u64)>,
}

impl Counts {
    /// Bytes of both frames.
    const LEN: usize = FRAME_HEADER + 8 + FRAME_HEADER + 16;
}

impl<A: Aead> Peer<A> {
    /// Asks with the next ping, which goes at once, whether the peer sent a cluster datagram of this number.
    pub(crate) fn ask_count(&mut self, seen: u64, now: Instant) {
        self.counts.get_or_insert_default().ask = Some(seen);
        self.prove(now);
    }

    /// Opens a session though nothing else needs one.
    pub(crate) fn want_session(&mut self) {
        self.session.due = true;
    }

    /// Takes a frame of the peer's about counts.
    pub(super) fn handle_count(&mut self, frame: &Frame<'_>) {
        let counts = self.counts.get_or_insert_default();
        match frame {
            Frame::CountAsked { seen } => counts.asked = Some(*seen),
            Frame::Count { seen, next } => counts.told = Some((*seen, *next)),
            _ => {}
        }
    }

    /// Whether there is something for [`take_counts`](Self::take_counts).
    pub(crate) fn has_counts(&self) -> bool {
        self.counts.as_ref().is_some_and(|counts| counts.asked.is_some() || counts.told.is_some())
    }

    /// Gives what the peer told, and has it told in turn, beside the pong, that this end did not send the number that it
    /// asked about. `own` is the next number that this end will send.
    pub(crate) fn take_counts(&mut self, own: u64) -> Option<(u64, u64)> {
        let counts = self.counts.as_mut()?;
        if let Some(seen) = counts.asked.take().filter(|&seen| seen >= own) {
            counts.tell = Some((seen, own));
        }
        let told = counts.told.take();
        self.counts.take_if(|counts| counts.ask.is_none() && counts.tell.is_none());
        told
    }

    /// Puts what is to be told into a datagram, where there is room for it.
    pub(super) fn put_counts(counts: &mut Option<Box<Counts>>, room: usize, buffer: &mut Vec<u8>) {
        let Some(held) = counts.take_if(|_| room >= Counts::LEN) else { return };
        if let Some(seen) = held.ask {
            Frame::CountAsked { seen }.emit(buffer);
        }
        if let Some((seen, next)) = held.tell {
            Frame::Count { seen, next }.emit(buffer);
        }
    }
}
