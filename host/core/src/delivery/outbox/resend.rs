//! What is to be sent once more, and by which path.

use alloc::collections::{BTreeMap, VecDeque};

use overlan_wire::PathId;

use crate::delivery::Content;

/// Copies that wait for a path: one that is slower than the active one carries as many as it can.
const MAX_COPIES: usize = 1_024;

/// Which path may carry a content once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// Preferably another than this one.
    Not(PathId),
    /// Whichever carries new traffic.
    Any,
    /// Only this one: a copy, in active mode.
    Only(PathId),
}

/// What of the outbox a path may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take {
    pub(crate) path: PathId,
    /// New data as well as what is sent again.
    pub(crate) fresh: bool,
    /// Also what would rather take another path: there is none.
    pub(crate) last_resort: bool,
    /// What avoids this path, too: the caller is its alternate.
    pub(crate) instead_of: Option<PathId>,
}

impl Via {
    fn fits(self, take: Take) -> bool {
        match self {
            Via::Any => take.fresh,
            Via::Only(path) => path == take.path,
            Via::Not(path) if path == take.path => take.last_resort,
            Via::Not(path) => take.fresh || take.instead_of == Some(path),
        }
    }
}

/// The queues of what is sent again, oldest first in each.
#[derive(Debug, Default)]
pub(super) struct Resends(BTreeMap<Via, VecDeque<Content>>);

impl Resends {
    pub(super) fn push(&mut self, content: Content, via: Via) {
        self.0.entry(via).or_default().push_back(content);
    }

    /// A copy for this path, unless it is behind with them.
    pub(super) fn push_copy(&mut self, content: Content, path: PathId) {
        let queue = self.0.entry(Via::Only(path)).or_default();
        if queue.len() < MAX_COPIES {
            queue.push_back(content);
        }
    }

    pub(super) fn fits(&self, take: Take) -> bool {
        self.0.iter().any(|(via, queue)| via.fits(take) && !queue.is_empty())
    }

    /// The oldest content for this taker. Give back what was not sent with [`put_back`](Self::put_back).
    pub(super) fn pop(&mut self, take: Take) -> Option<(Via, Content)> {
        let (&via, queue) = self.0.iter_mut().find(|(via, queue)| via.fits(take) && !queue.is_empty())?;
        let content = queue.pop_front()?;
        if queue.is_empty() && !matches!(via, Via::Only(_)) {
            self.0.remove(&via);
        }
        Some((via, content))
    }

    pub(super) fn put_back(&mut self, via: Via, content: Content) {
        self.0.entry(via).or_default().push_front(content);
    }

    pub(super) fn drop_copies(&mut self, path: PathId) {
        self.0.remove(&Via::Only(path));
    }
}
