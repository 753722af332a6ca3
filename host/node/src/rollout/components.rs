//! Components at hand: the shipped ones, and those in the state directory, by digest.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use overlan_core::document::MAX_COMPONENT;
use overlan_wire::Digest;
use sha2::{Digest as _, Sha256};

use super::message::PIECE;
use crate::state::{open_regular, read_bounded, write_private};

/// What follows the digest in a file's name.
const SUFFIX: &str = ".wasm";
/// How files begin that are being written; what a killed node left of them goes with the others.
const TEMPORARY: &str = ".tmp";

/// The folder of components in the state directory: one file for each, named by its SHA-256. Cheap to clone. Its
/// methods wait for the disk.
#[derive(Clone, Debug)]
pub(super) struct Components {
    folder: PathBuf,
    /// Held while files come or go, so that none goes while it comes.
    changing: Arc<Mutex<()>>,
}

impl Components {
    pub(super) fn new(state_dir: &Path) -> Self {
        Components { folder: state_dir.join("components"), changing: Arc::default() }
    }

    fn path(&self, sha256: Digest) -> PathBuf {
        self.folder.join(format!("{sha256}{SUFFIX}"))
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole component; `None` where it is not here or damaged.
    pub(super) fn read(&self, sha256: Digest) -> Option<Vec<u8>> {
        shipped(sha256).map(<[u8]>::to_vec).or_else(|| self.stored(sha256))
    }

    fn stored(&self, sha256: Digest) -> Option<Vec<u8>> {
        let bytes = read_bounded(&self.path(sha256), MAX_COMPONENT).ok()?;
        (digest(&bytes) == sha256).then_some(bytes)
    }

    /// Whether it is here.
    pub(super) fn has(&self, sha256: Digest) -> bool {
        self.size(sha256).is_some()
    }

    /// Bytes of one that is here.
    pub(super) fn size(&self, sha256: Digest) -> Option<u64> {
        let stored = || fs::metadata(self.path(sha256)).ok().filter(fs::Metadata::is_file);
        shipped(sha256).map(|wasm| wasm.len() as u64).or_else(|| Some(stored()?.len()))
    }

    /// Some of a component; nothing where it is not here, or ends before.
    pub(super) fn piece(&self, sha256: Digest, offset: u32) -> Bytes {
        let offset = offset as usize;
        if let Some(wasm) = shipped(sha256) {
            let rest = wasm.get(offset..).unwrap_or_default();
            return Bytes::from_static(&rest[..rest.len().min(PIECE)]);
        }
        let mut bytes = Vec::new();
        let read = open_regular(&self.path(sha256)).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset as u64))?;
            file.take(PIECE as u64).read_to_end(&mut bytes)
        });
        read.map(|_| bytes.into()).unwrap_or_default()
    }

    /// Stores a component of this digest, whether shipped or not.
    pub(super) fn put(&self, sha256: Digest, bytes: &[u8]) -> io::Result<()> {
        let _alone = self.change();
        if self.stored(sha256).is_none() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            self.check_folder()?;
            write_private(&self.path(sha256), bytes)?;
        }
        Ok(())
    }

    /// Stores a component if it is a shipped one: the next release may ship another in its place.
    pub(super) fn put_shipped(&self, sha256: Digest) -> io::Result<()> {
        shipped(sha256).map_or(Ok(()), |wasm| self.put(sha256, wasm))
    }

    /// Removes all components but those that are wanted once nobody else changes the folder.
    pub(super) fn keep(&self, wanted: impl FnOnce() -> BTreeSet<Digest>) {
        let _alone = self.change();
        if self.check_folder().is_err() {
            return;
        }
        let wanted = wanted();
        let goes = |name: &str| match name.strip_suffix(SUFFIX).map(str::parse) {
            Some(Ok(sha256)) => !wanted.contains(&sha256),
            _ => name.starts_with(TEMPORARY),
        };
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if file.file_name().to_str().is_some_and(goes)
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::warn!(%error, file = %file.path().display(), "an old component stays");
            }
        }
    }

    /// Files come and go nowhere but in a folder of this user's own.
    fn check_folder(&self) -> io::Result<()> {
        let facts = fs::symlink_metadata(&self.folder)?;
        let own = facts.uid() == rustix::process::geteuid().as_raw() && facts.mode() & 0o022 == 0;
        if facts.is_dir() && own {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(io::Error::other(format!(
            "{folder} must be a folder (no link) that belongs to this user and that nobody else can write"
        )))
    }
}

fn shipped(sha256: Digest) -> Option<&'static [u8]> {
    let text = sha256.to_string();
    overlan_plugins_dist::BUILTINS.iter().find(|builtin| builtin.sha256 == text).map(|builtin| builtin.wasm)
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(components: &Components, bytes: &[u8]) -> Digest {
        let sha256 = digest(bytes);
        components.put(sha256, bytes).unwrap();
        sha256
    }

    #[test]
    fn components_are_found_by_digest_damaged_ones_are_not_and_others_go() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::new(folder.path());
        let bytes: Vec<u8> = (0..PIECE + 10).map(|byte| byte as u8).collect();
        let (first, second) = (put(&components, &bytes), put(&components, b"second"));
        assert_eq!(components.read(first).as_ref(), Some(&bytes));
        assert_eq!(components.piece(first, 0).len(), PIECE);
        assert_eq!(components.piece(first, PIECE as u32), bytes[PIECE..]);
        assert!(
            components.piece(first, u32::MAX).is_empty() && components.piece(Digest([1; 32]), 0).is_empty()
        );
        fs::write(components.path(second), "damaged").unwrap();
        assert_eq!(components.read(second), None);
        put(&components, b"second");
        let (left_over, foreign) =
            (components.folder.join(".tmpAb1xY2"), components.folder.join("notes.wasm"));
        fs::write(&left_over, "half a component").unwrap();
        fs::write(&foreign, "nobody's component").unwrap();
        components.keep(|| BTreeSet::from([second]));
        assert!(!components.has(first) && components.has(second));
        assert!(!left_over.exists() && foreign.exists(), "what is not ours stays");
    }

    /// The release after this one may ship another in its place.
    #[test]
    fn shipped_components_can_be_stored_too() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::new(folder.path());
        let builtin = &overlan_plugins_dist::BUILTINS[0];
        let sha256 = builtin.sha256.parse().unwrap();
        assert_eq!(components.read(sha256).as_deref(), Some(builtin.wasm));
        assert_eq!(components.stored(sha256), None);
        components.put_shipped(sha256).unwrap();
        assert_eq!(components.stored(sha256).as_deref(), Some(builtin.wasm));
        components.put_shipped(Digest([1; 32])).unwrap();
        assert_eq!(fs::read_dir(&components.folder).unwrap().count(), 1);
    }

    #[test]
    fn nothing_comes_or_goes_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::new(folder.path());
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let theirs = elsewhere.join(format!("{}{SUFFIX}", Digest([7; 32])));
        fs::write(&theirs, "theirs").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &components.folder).unwrap();
        components.keep(BTreeSet::new);
        assert!(theirs.exists());
        let refused = components.put(digest(b"ours"), b"ours").unwrap_err();
        assert!(refused.to_string().contains("no link"), "{refused}");
    }
}
