//! What must hold of an outbox between any two calls.

use overlan_wire::limits::CLUSTER_STREAM;

use super::batch::{Batch, cost};
use super::{OutStream, Outbox};

impl Outbox {
    /// Panics where the counters do not say what is there, or a stream that has something to send has no turn.
    pub(crate) fn check(&self) {
        let streams = || self.streams.iter().filter(|(id, _)| **id != CLUSTER_STREAM);
        assert_eq!(self.queued_bytes, streams().map(|(_, stream)| stream.queued_bytes).sum::<usize>());
        assert_eq!(self.opened_cost, streams().map(|(_, stream)| stream.opened_cost).sum::<u64>());
        for (id, stream) in streams() {
            stream.check();
            let turns = self.turns.iter().filter(|turn| *turn == id).count();
            assert_eq!(turns, usize::from(stream.has_unsent()), "turns of stream {id}");
        }
    }
}

impl OutStream {
    fn check(&self) {
        let reliable = self.reliable.iter().enumerate().map(|(at, batch)| self.check_reliable(at, batch));
        let unreliable = self.unreliable.iter().map(|batch| {
            assert!(!batch.is_opened(), "it has left");
            batch.queued.payloads[batch.opened..].iter().map(cost).sum()
        });
        let piece = self.piece.iter().map(|piece| cost(&piece.payload));
        assert_eq!(self.queued_bytes, reliable.chain(unreliable).chain(piece).sum::<usize>());
        assert!(self.base <= self.next_id);
        assert!(!self.reliable.front().is_some_and(Batch::is_closed), "it is done with");
    }

    /// Returns what the batch at this place counts for.
    fn check_reliable(&self, at: usize, batch: &Batch) -> usize {
        assert!(batch.len() > 0);
        assert_eq!(batch.is_opened(), at < self.next, "batch {at}, {} are opened", self.next);
        assert!(at <= self.next || batch.opened == 0, "batch {at} before batch {}", self.next);
        match batch.opened {
            0 => assert_eq!(batch.first, u64::MAX),
            _ => assert!(batch.first < self.next_id),
        }
        let held = |(at, payload)| {
            if !batch.is_closed_at(at) {
                return cost(payload);
            }
            assert!((at as usize) < batch.opened, "accepted before it left");
            assert!(batch.complete.contains(at), "accepted before it arrived");
            0
        };
        (0..).zip(&batch.queued.payloads).map(held).sum()
    }
}
