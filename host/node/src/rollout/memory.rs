//! What was rolled back here, over a restart: a policy that failed its probation on this member is not tried on it again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use overlan_contract::Kind;
use serde::{Deserialize, Serialize};

use crate::state::{read_bounded, write_private};

/// Beside the cluster document.
const FILE: &str = "rolled-back.json";
/// Largest file: one policy of each kind, with a reason as long as a fault is told.
const MAX_FILE: usize = 1 << 20;

/// A policy of the cluster document that gave way here to the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RolledBack {
    /// Of the plugin, with its configuration and limits.
    pub(super) digest: String,
    /// Version of the document that put it in force.
    pub(super) version: u64,
    /// What gave way and why, in a sentence. What answers in its place may change.
    pub(super) why: String,
}

/// One of each kind at most, as the state directory has them. Its methods wait for the disk.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
}

impl Memory {
    pub(super) fn new(state_dir: &Path) -> Self {
        Memory { path: state_dir.join(FILE) }
    }

    /// What is remembered. A damaged file is told and forgotten: what it names is tried once more.
    pub(super) fn load(&self) -> BTreeMap<Kind, RolledBack> {
        let read = read_bounded(&self.path, MAX_FILE);
        let read = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match read {
            Ok(rolled_back) => rolled_back,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "what was rolled back is not known any more");
                BTreeMap::new()
            }
        }
    }

    pub(super) fn store(&self, rolled_back: &BTreeMap<Kind, RolledBack>) -> io::Result<()> {
        if rolled_back.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        write_private(&self.path, &serde_json::to_vec_pretty(rolled_back)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_known_and_damage_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        assert!(memory.load().is_empty());
        let one = RolledBack { digest: "ab".into(), version: 3, why: "x gave way: it crashed".into() };
        let all = BTreeMap::from([(Kind::Failover, one)]);
        memory.store(&all).unwrap();
        assert_eq!(memory.load(), all);
        std::fs::write(folder.path().join(FILE), "{\"failover\": 1").unwrap();
        assert!(memory.load().is_empty());
        memory.store(&BTreeMap::new()).unwrap();
        memory.store(&BTreeMap::new()).unwrap();
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
