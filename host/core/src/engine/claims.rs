//! Boots and names that members claim in their entries: who claimed one first keeps it.
//!
//! Boots are random, and names are the operator's to give, so that two entries with one of either are a mistake or a lie. Both
//! entries stand in the table, which is the same everywhere; what is looked up by boot or name leads to the first.

use alloc::collections::BTreeMap;

use overlan_wire::{BootId, NodeId, Record};

use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::status::MemberState;

/// Since when members have their names, as places in a row.
#[derive(Debug, Default)]
pub(super) struct Names {
    since: BTreeMap<NodeId, u64>,
    next: u64,
}

/// What the table held of a node before a record replaced that.
pub(super) struct Before {
    boot: Option<BootId>,
    renamed: bool,
}

impl<C: Crypto> Core<C> {
    /// What a record is about to change.
    pub(super) fn claims_before(&self, record: &Record) -> Before {
        let held = self.table.entry(record.id());
        let named = match record {
            Record::Entry(entry) => Some(&entry.name),
            Record::Forgotten(_) => None,
        };
        Before { boot: held.map(|held| held.boot), renamed: held.map(|held| &held.name) != named }
    }

    /// The table's record of a node changed.
    pub(super) fn note_claims(&mut self, id: NodeId, before: &Before) {
        let claimed = self.table.entry(id).map(|entry| entry.boot);
        if let Some(boot) = before.boot.filter(|&boot| Some(boot) != claimed)
            && self.boots.get(&boot) == Some(&id)
        {
            self.boots.remove(&boot);
            let next = self.table.entries().find(|entry| entry.boot == boot).map(|entry| entry.id);
            self.boots.extend(next.map(|next| (boot, next)));
        }
        if let Some(boot) = claimed {
            self.boots.entry(boot).or_insert(id);
        }
        if claimed.is_none() {
            self.names.since.remove(&id);
        } else if before.renamed {
            self.names.next += 1;
            self.names.since.insert(id, self.names.next);
        }
    }

    /// The members of a name: live ones, and whoever has it for longest, first.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = (bool, u64, MemberState, NodeId)> {
        let named = self.table.entries().filter(move |entry| entry.name == name);
        named.map(|entry| {
            let (state, since) = (self.state_of(entry.id), self.names.since.get(&entry.id));
            (!is_live(state), since.copied().unwrap_or(u64::MAX), state, entry.id)
        })
    }
}
