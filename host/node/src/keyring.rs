//! The cluster keys of a running node. The key file is what holds: a change is written there first, then all that it
//! says takes effect, so that a restart finds what was in force. A change that is in the file already is none, and takes
//! effect too: members may share a file, and what was cut short may be said again.

use std::io;
use std::path::{Path, PathBuf};

use overlan_seal::{Keyring, KeyringError};
use overlan_wire::KeyId;
use serde::{Deserialize, Serialize};

use crate::config::Security;
use crate::handle::Stopped;
use crate::state::{read_bounded, write_private};

/// Bytes of a key file at most.
pub const MAX_KEY_FILE: usize = 1 << 20;

/// A cluster key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Eight hexadecimal digits, as in the key file.
    pub id: String,
    /// Whether this node seals with it; it opens with all.
    pub active: bool,
}

/// A change of the cluster keys. To replace the key of a running cluster: add the new one on every member, then promote
/// it on every member, then retire the old one on every member. No message is lost.
#[derive(Clone)]
pub enum KeyringChange {
    /// Accept the keys of this key file's text, too.
    Add(String),
    /// Seal with this key from now on.
    Promote(KeyId),
    /// Accept this key no longer; sessions opened under it end.
    Retire(KeyId),
    /// Take what the key file says now.
    Reload,
}

/// Why the cluster keys did not change. Neither the node nor the file did, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum KeyringFailure {
    /// There is no key file.
    #[error(
        "the node runs with security = \"none\" and has no cluster keys; name a [cluster] key_file and restart"
    )]
    NoKeys,
    /// The node's key file can't be read or written.
    #[error("{path}: {source}; the node must be able to read and write its key file")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keys given, the file, or the change make no sense.
    #[error("{place}{source}")]
    Keyring {
        /// Where it is wrong; empty where it is the change itself.
        place: String,
        /// What is wrong, and what to do.
        source: KeyringError,
    },
    /// The node has stopped. The file may have changed.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The text of a key file.
pub(crate) fn read_key_file(path: &Path) -> io::Result<String> {
    let bytes = read_bounded(path, MAX_KEY_FILE)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_KEY_FILE);
    text.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no key file"))
}

/// Reads the key file, changes it and, unless it was only to be read, writes it.
pub(crate) fn change(security: &Security, change: KeyringChange) -> Result<Keyring, KeyringFailure> {
    let Security::KeyFile(path) = security else { return Err(KeyringFailure::NoKeys) };
    let file = |source| KeyringFailure::File { path: path.clone(), source };
    let wrong = |place: &str, source| KeyringFailure::Keyring { place: place.to_owned(), source };
    let text = read_key_file(path).map_err(file)?;
    let mut keyring =
        Keyring::parse(&text).map_err(|source| wrong(&format!("{}: ", path.display()), source))?;
    match change {
        KeyringChange::Reload => return Ok(keyring),
        KeyringChange::Add(text) => {
            let new = Keyring::parse(&text).map_err(|source| wrong("the keys to add: ", source))?;
            keyring.add_all(&new).map_err(|source| wrong("", source))?;
        }
        KeyringChange::Promote(id) => keyring.promote(id).map_err(|source| wrong("", source))?,
        // Gone is gone.
        KeyringChange::Retire(id) if keyring.ids().all(|known| known != id) => {}
        KeyringChange::Retire(id) => keyring.retire(id).map_err(|source| wrong("", source))?,
    }
    write_private(path, keyring.to_text().as_bytes()).map_err(file)?;
    Ok(keyring)
}

/// The keys of a keyring, the active one first.
pub(crate) fn views(keyring: &Keyring) -> Vec<KeyView> {
    let view = |id: KeyId| KeyView { id: format!("{:08x}", id.0), active: id == keyring.active() };
    keyring.ids().map(view).collect()
}
