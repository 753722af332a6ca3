//! Where a sender's count of cluster datagrams stands, told within its session.
//!
//! Cluster datagrams prove the cluster key alone: any member can send one in another's name, with a number so high that the
//! replay window refuses all that the other sends from then on. A session is authentic pairwise: there, whoever refuses
//! what comes in a member's name asks it whether it sent the highest number that came. One that did not says where its
//! count stands, and the window is set back to that: what it sends is taken again, and nothing that it sent before is
//! taken twice. Where there is no session, one is opened: handshakes and hellos need no replay window
//! ([`needs_no_window`]).

use core::time::Duration;

use overlan_wire::{BootId, Frame, NodeId};

use super::Core;
use crate::crypto::Crypto;
use crate::sighting::Sighting;

/// A sender is asked this often at most: several times within the time that a suspect has to object.
pub(super) const ASK_PAUSE: Duration = Duration::from_millis(500);
/// Old datagrams of a sender that are looked through at once, and, then, one for each [`OLD_REST`]: a few hellos and openings,
/// and no more work than that for whoever recorded some.
pub(super) const OLD_BURST: u32 = 16;
/// See [`OLD_BURST`].
pub(super) const OLD_REST: Duration = Duration::from_millis(50);

/// Members in whose names others have sent.
#[derive(Debug, Default)]
pub(super) struct Impostors {
    seen: Sighting,
    last: Option<NodeId>,
}

impl Impostors {
    /// The last one whose name was used, and how often that was found out lately.
    pub(super) fn lasting(&self, now: crate::Instant) -> Option<(NodeId, u64)> {
        self.last.zip(self.seen.lasting(now))
    }
}

/// Whether the frame means the same however often it comes: it echoes a number that this node drew and takes once, or
/// counts the sender's handshakes, or is signed and has a version.
pub(super) fn needs_no_window(frame: &Frame<'_>) -> bool {
    matches!(
        frame,
        Frame::Hello { .. }
            | Frame::HelloReply { .. }
            | Frame::HelloDone { .. }
            | Frame::Refused { .. }
            | Frame::Record(_)
            | Frame::SessionOpen { .. }
            | Frame::SessionAccept { .. }
            | Frame::SessionCookie { .. }
    )
}

impl<C: Crypto> Core<C> {
    /// An authentic datagram of this boot was refused by its number: asks the member for its count, or opens a session to
    /// do so.
    pub(super) fn ask_count(&mut self, boot: BootId, seen: u64) {
        let Some(&id) = self.boots.get(&boot) else { return };
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.boot == boot) else { return };
        if peer.is_open() {
            peer.ask_count(seen, now);
            self.touch(id);
        } else {
            peer.want_session();
            self.handshakes.hurry(now);
        }
    }

    /// Answers what a member asked within its session about this node's count, and acts on what it told of its own.
    pub(super) fn handle_counts(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let own = self.senders.count();
        let (boot, told) = (peer.boot, peer.take_counts(own));
        // Who names another's boot in its entry speaks for itself alone.
        let holds = self.boots.get(&boot) == Some(&id);
        if let Some((seen, count)) = told.filter(|_| holds)
            && self.senders.set_back(boot, seen, count, self.now)
        {
            self.impostors.seen.note(self.now);
            self.impostors.last = Some(id);
        }
    }
}
