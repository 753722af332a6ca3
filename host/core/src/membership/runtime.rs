//! What foca wants done, and the records that its gossip brings: it tells, the engine does.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::time::Duration;

use foca::Notification;
use overlan_wire::{NodeId, SignedRecord};

use super::identity::{Identity, RecordKey};

/// Records that arrived with gossip. They are spread further once the engine has verified them and
/// adds them itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Broadcasts(pub(super) Rc<RefCell<VecDeque<Vec<u8>>>>);

/// Records that may wait to be verified; more are dropped, and anti-entropy brings them later.
const MAX_WAITING: usize = 1_024;

impl foca::BroadcastHandler<Identity> for Broadcasts {
    type Key = RecordKey;
    type Error = Infallible;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&Identity>,
    ) -> Result<Option<RecordKey>, Infallible> {
        if sender.is_some() {
            let mut waiting = self.0.borrow_mut();
            if waiting.len() < MAX_WAITING {
                waiting.push_back(data.to_vec());
            }
            return Ok(None);
        }
        let parsed = SignedRecord::parse(data).ok();
        Ok(parsed.map(|signed| RecordKey { id: signed.record.id(), precedence: signed.record.precedence() }))
    }
}

/// What foca wants done.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) sends: VecDeque<(NodeId, Vec<u8>)>,
    /// Probes that go out again, by all paths.
    pub(super) retries: VecDeque<(NodeId, Vec<u8>)>,
    pub(super) timers: Vec<(foca::Timer<Identity>, Duration)>,
    pub(super) defunct: bool,
    pub(super) changed: bool,
    /// Somebody is active, and nobody was.
    pub(super) returned: bool,
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.changed = true;
        self.defunct |= notification == Notification::Defunct;
        self.returned |= notification == Notification::Active;
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push_back((to.node(), data.to_vec()));
    }

    fn submit_after(&mut self, event: foca::Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}
