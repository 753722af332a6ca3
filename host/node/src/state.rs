//! The state directory: identity, the version of the own entry, what is remembered of the cluster, and a lock against a
//! second node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use overlan_contract::assignment::MAX_NODES;
use overlan_core::LastKnown;
use overlan_core::document::SignedDocument;
use overlan_seal::{Identity, IdentityError};
use overlan_wire::limits::{MAX_ADAPTERS, MAX_DOCUMENT, MAX_VERSION};

use crate::last_known;

/// The stored version runs ahead of the published one by up to this much, so that the disk is asked seldom.
const VERSION_MARGIN: u64 = 256;
/// Largest file of the identity or the version, comments included.
const MAX_TEXT_FILE: usize = 64 << 10;
/// The cluster document's file.
const DOCUMENT: &str = "document";
/// The file of the other members' addresses.
const LAST_KNOWN: &str = "last-known";
/// Largest of it: the addresses of a full table, a line each of at most so many bytes.
const MAX_LAST_KNOWN: usize = MAX_NODES * MAX_ADAPTERS * 96;

/// Why a state directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder can't be read or written.
    #[error("{path}: {source}; the node must be able to write its state directory (--state-dir chooses one)")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another node holds the lock.
    #[error(
        "another node runs on the state directory {0}; stop it, or give this one a directory of its own (--state-dir)"
    )]
    Locked(PathBuf),
    /// The identity can't be read.
    #[error("{path}: {source}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The version can't be read.
    #[error(
        "{0} holds no version; restore it from a backup, or write a number above the version that \
         `overlan table` of another member shows for this node"
    )]
    Version(PathBuf),
    /// The cluster document can't be read.
    #[error(
        "{0} holds no cluster document; restore it from a backup, or remove it: the other members have it"
    )]
    Document(PathBuf),
    /// The addresses of the other members can't be read.
    #[error(
        "{path}: line {line} is no `ADDRESS:PORT ID` (and `left` behind it, of a member that left); correct or remove it. A \
         member that is not named there is not counted for a majority until it is met"
    )]
    LastKnown {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
}

/// An opened and locked state directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    document: Option<SignedDocument>,
    last_known: Vec<LastKnown>,
    stored_version: u64,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory if need be, locks it, and reads or makes the identity.
    ///
    /// # Errors
    /// See [`StateError`].
    pub(crate) fn open(path: &Path) -> Result<(Self, Identity), StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
        warn_of_others(path, 0o022, "other users may change what the node keeps there; `chmod go-w` it");
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => StateError::Locked(path.to_owned()),
            errno => StateError::Io { path: lock_path.clone(), source: errno.into() },
        })?;
        let identity = identity(path)?;
        let version_path = path.join("version");
        let stored_version = match read_bounded(&version_path, MAX_TEXT_FILE) {
            Ok(text) => {
                let version = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
                let version = version.filter(|version| *version < MAX_VERSION);
                version.ok_or(StateError::Version(version_path))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(at(&version_path)(source)),
        };
        let document_path = path.join(DOCUMENT);
        let document = match read_bounded(&document_path, MAX_DOCUMENT) {
            Ok(bytes) => {
                Some(SignedDocument::parse(bytes.into()).map_err(|_| StateError::Document(document_path))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(at(&document_path)(source)),
        };
        let last_known_path = path.join(LAST_KNOWN);
        let last_known = match read_bounded(&last_known_path, MAX_LAST_KNOWN) {
            Ok(text) => last_known::parse(&String::from_utf8_lossy(&text))
                .map_err(|line| StateError::LastKnown { path: last_known_path, line })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(at(&last_known_path)(source)),
        };
        let path = path.to_owned();
        Ok((StateDir { path, document, last_known, stored_version, _lock: lock }, identity))
    }

    /// No version above this one was published before.
    pub(crate) fn last_version(&self) -> u64 {
        self.stored_version
    }

    /// The cluster document of the life before.
    pub(crate) fn document(&self) -> Option<&SignedDocument> {
        self.document.as_ref()
    }

    /// The addresses of the other members in the life before.
    pub(crate) fn last_known(&self) -> &[LastKnown] {
        &self.last_known
    }

    /// Where the addresses of the other members are stored for the next start.
    pub(crate) fn last_known_path(&self) -> PathBuf {
        self.path.join(LAST_KNOWN)
    }

    /// Where the cluster document is stored for the next start.
    pub(crate) fn document_path(&self) -> PathBuf {
        self.path.join(DOCUMENT)
    }

    /// Makes sure that the next start begins above `version`; call before the entry leaves this node.
    ///
    /// # Errors
    /// The disk; the older stored version stands.
    pub(crate) fn store_version(&mut self, version: u64) -> Result<(), StateError> {
        if version <= self.stored_version && self.stored_version > 0 {
            return Ok(());
        }
        let ahead = version.saturating_add(VERSION_MARGIN).min(MAX_VERSION - 1);
        let path = self.path.join("version");
        write_private(&path, format!("{ahead}\n").as_bytes())
            .map_err(|source| StateError::Io { path, source })?;
        self.stored_version = ahead;
        Ok(())
    }
}

/// Where other users have any of these rights.
pub(crate) fn warn_of_others(path: &Path, rights: u32, why: &str) {
    if fs::metadata(path).is_ok_and(|facts| facts.mode() & rights != 0) {
        tracing::warn!("{}: {why}", path.display());
    }
}

fn identity(dir: &Path) -> Result<Identity, StateError> {
    let path = dir.join("identity");
    match read_bounded(&path, MAX_TEXT_FILE) {
        Ok(text) => {
            warn_of_others(&path, 0o077, "other users may read the node's identity; `chmod 600` it");
            Identity::parse(&String::from_utf8_lossy(&text))
                .map_err(|source| StateError::Identity { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity::generate(random());
            write_private(&path, identity.to_text().as_bytes())
                .map_err(|source| StateError::Io { path, source })?;
            Ok(identity)
        }
        Err(source) => Err(StateError::Io { path, source }),
    }
}

/// A file to read. Anything else is refused at once: a FIFO would be waited for, and a device never ends.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// All of a regular file, of which nothing is read beyond a byte more than `max`: that byte tells that it is larger.
///
/// # Errors
/// It can't be read, or is no regular file.
pub fn read_bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file of mode 0600 as a whole or not at all; a link is followed.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    // That the name is lost in a power cut is all that can happen now: the old content, not half of the new one.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Bytes from the operating system's random source.
///
/// # Panics
/// The operating system has none (before Linux 3.17, or by a filter of system calls): nothing can be sealed then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has a random source");
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn identity_stays_and_the_version_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (mut state, first) = StateDir::open(&path).unwrap();
        assert_eq!(state.last_version(), 0);
        state.store_version(1).unwrap();
        let stored = state.last_version();
        state.store_version(2).unwrap();
        assert_eq!(state.last_version(), stored);
        state.store_version(stored + 1).unwrap();
        let stored = state.last_version();
        drop(state);
        let (state, second) = StateDir::open(&path).unwrap();
        assert_eq!(state.last_version(), stored);
        assert_eq!(first.node_id(), second.node_id());
    }

    #[test]
    fn private_files_are_replaced_whole_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (file, neighbour, link) =
            (dir.path().join("a.key"), dir.path().join("a.new"), dir.path().join("link"));
        fs::write(&neighbour, "theirs").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for text in ["one", "two"] {
            write_private(&file, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&link).unwrap(), text);
        }
        write_private(&link, b"three").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "three");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&neighbour).unwrap(), "theirs");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left behind");
    }

    #[test]
    fn a_second_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = StateDir::open(dir.path()).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Locked(_))));
    }

    #[test]
    fn damage_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity"), "nonsense\n").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Identity { .. })));
        fs::remove_file(dir.path().join("identity")).unwrap();
        fs::write(dir.path().join("version"), "x").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Version(_))));
        // As large as a disk: read no further than a version could go.
        File::create(dir.path().join("version")).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Version(_))));
        fs::remove_file(dir.path().join("version")).unwrap();
        fs::write(dir.path().join(LAST_KNOWN), "\n\0\0\n").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::LastKnown { line: 2, .. })));
    }

    #[test]
    fn a_stored_version_is_one_to_start_with() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, _) = StateDir::open(dir.path()).unwrap();
        state.store_version(MAX_VERSION - 2).unwrap();
        drop(state);
        assert_eq!(StateDir::open(dir.path()).unwrap().0.last_version(), MAX_VERSION - 1);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        for name in ["lock", "identity", "version", DOCUMENT, LAST_KNOWN] {
            let dir = tempfile::tempdir().unwrap();
            nix::unistd::mkfifo(&dir.path().join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
            let error = StateDir::open(dir.path()).unwrap_err();
            assert!(matches!(&error, StateError::Io { path, .. } if path.ends_with(name)), "{error}");
        }
    }
}
