//! Components at hand: the shipped ones, and those in the state directory, by digest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use overlan_core::document::MAX_COMPONENT;
use overlan_wire::Digest;
use sha2::{Digest as _, Sha256};

use super::message::PIECE;
use crate::state::{read_bounded, write_private};

/// The folder of components in the state directory: one file for each, named by its SHA-256.
#[derive(Clone, Debug)]
pub(super) struct Components {
    folder: PathBuf,
}

impl Components {
    pub(super) fn new(state_dir: &Path) -> Self {
        Components { folder: state_dir.join("components") }
    }

    fn path(&self, sha256: Digest) -> PathBuf {
        self.folder.join(format!("{sha256}.wasm"))
    }

    /// A whole component; `None` where it is not here or damaged.
    pub(super) fn read(&self, sha256: Digest) -> Option<Vec<u8>> {
        if let Some(wasm) = shipped(sha256) {
            return Some(wasm.to_vec());
        }
        let bytes = read_bounded(&self.path(sha256), MAX_COMPONENT).ok()?;
        (digest(&bytes) == sha256).then_some(bytes)
    }

    /// Whether it is here.
    pub(super) fn has(&self, sha256: Digest) -> bool {
        shipped(sha256).is_some() || self.path(sha256).exists()
    }

    /// Some of a component; nothing where it is not here, or ends before.
    pub(super) fn piece(&self, sha256: Digest, offset: u32) -> Bytes {
        let offset = offset as usize;
        if let Some(wasm) = shipped(sha256) {
            let rest = wasm.get(offset..).unwrap_or_default();
            return Bytes::from_static(&rest[..rest.len().min(PIECE)]);
        }
        let mut bytes = Vec::new();
        let read = File::open(self.path(sha256)).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset as u64))?;
            file.take(PIECE as u64).read_to_end(&mut bytes)
        });
        read.map(|_| bytes.into()).unwrap_or_default()
    }

    /// Stores a component.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let sha256 = digest(bytes);
        if self.read(sha256).is_none() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            write_private(&self.path(sha256), bytes)?;
        }
        Ok(sha256)
    }

    /// Removes all others.
    pub(super) fn keep(&self, wanted: &BTreeSet<Digest>) {
        let names: BTreeSet<PathBuf> = wanted.iter().map(|sha256| self.path(*sha256)).collect();
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !names.contains(&file.path())
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::warn!(%error, file = %file.path().display(), "an old component stays");
            }
        }
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

    #[test]
    fn components_are_found_by_digest_damaged_ones_are_not_and_others_go() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::new(folder.path());
        let bytes: Vec<u8> = (0..PIECE + 10).map(|byte| byte as u8).collect();
        let (first, second) = (components.put(&bytes).unwrap(), components.put(b"second").unwrap());
        assert_eq!(components.read(first).as_ref(), Some(&bytes));
        assert_eq!(components.piece(first, 0).len(), PIECE);
        assert_eq!(components.piece(first, PIECE as u32), bytes[PIECE..]);
        assert!(
            components.piece(first, u32::MAX).is_empty() && components.piece(Digest([1; 32]), 0).is_empty()
        );
        fs::write(components.path(second), "damaged").unwrap();
        assert_eq!(components.read(second), None);
        components.put(b"second").unwrap();
        components.keep(&BTreeSet::from([second]));
        assert!(!components.has(first) && components.has(second));
        let builtin = &overlan_plugins_dist::BUILTINS[0];
        assert_eq!(components.read(builtin.sha256.parse().unwrap()).as_deref(), Some(builtin.wasm));
    }
}
