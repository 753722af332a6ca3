//! Compiled plugins on disk, so that a start need not compile again: 18 MB of Python takes seconds, its cache milliseconds.

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::hmac;
use wasmtime::component::Component;

/// Bytes of compiled code kept; the files used longest ago go first.
pub const MAX_CACHE_BYTES: u64 = 1 << 30;
/// Files kept.
const MAX_FILES: usize = 64;
/// Length of the tag before the code (HMAC-SHA-256).
const TAG_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const SUFFIX: &str = "aot";
/// How the name of a file begins that is not written yet.
const UNFINISHED: &str = ".unfinished-";

/// Why there is no cache. Plugins are compiled each time.
#[derive(Debug, thiserror::Error)]
pub enum AotError {
    /// The folder can't be made or read.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could have put code into it.
    #[error("{path} {why}; it holds native code, so it must be this user's own and writable by nobody else")]
    NotPrivate {
        /// The folder, or the key in it.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A private folder of compiled plugins.
///
/// Compiled code is native code: whoever can write it runs outside of the sandbox, and `wasmtime` does not recognise
/// forgeries. So a file is used only if it lies in a folder that belongs to this user and that nobody else may write,
/// is named by the SHA-256 of the component and the hash of `wasmtime`'s settings, and carries a tag (HMAC-SHA-256 over
/// name and content) under a random key that lies beside it with mode 0600. It is read once, checked, and used from
/// memory, so that it can't change in between.
///
/// This protects against damage, against files of another node or host or under another name, and against anybody who
/// can put files there but not read the key. It does not protect against whoever acts as this user (or root): they can
/// read the key, and need no cache to run code.
#[derive(Debug)]
pub struct AotCache {
    dir: PathBuf,
    key: hmac::Key,
}

impl AotCache {
    /// Opens the folder, or makes it with mode 0700; the one it lies in must exist. One process uses it at a time:
    /// what another left half written is removed.
    ///
    /// # Errors
    /// The folder or its key can't be used.
    pub fn open(dir: &Path) -> Result<Self, AotError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| AotError::Io { path, source }
        };
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(dir)(error)),
            _ => {}
        }
        let facts = fs::symlink_metadata(dir).map_err(at(dir))?;
        let not_private = |path: &Path, why| AotError::NotPrivate { path: path.to_owned(), why };
        if !facts.is_dir() {
            return Err(not_private(dir, "is no folder"));
        }
        check_private(&facts).map_err(|why| not_private(dir, why))?;
        remove_unfinished(dir).map_err(at(dir))?;
        let path = dir.join("key");
        let secret = match read_private(&path, KEY_BYTES as u64) {
            Ok(secret) if secret.len() == KEY_BYTES => secret,
            // Lost or damaged: with a new key, nothing under the old one is used.
            _ => {
                let mut secret = vec![0; KEY_BYTES];
                getrandom::fill(&mut secret).map_err(|error| at(&path)(io::Error::other(error)))?;
                write_whole(&path, &[&secret]).map_err(at(&path))?;
                secret
            }
        };
        Ok(Self { dir: dir.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }

    /// The compiled form of a component that was stored before. `None`, for whatever reason: compile it.
    pub(crate) fn load(&self, engine: &wasmtime::Engine, sha256: &str) -> Option<Component> {
        let name = name(engine, sha256);
        let path = self.dir.join(&name);
        let bytes = match read_private(&path, MAX_CACHE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled policy is not used; it is compiled again");
                return None;
            }
        };
        let (tag, code) = bytes.split_at_checked(TAG_BYTES)?;
        if hmac::verify(&self.key, &signed(&name, code), tag).is_err() {
            tracing::warn!(path = %path.display(), "a compiled policy was not written by this node or is damaged; \
                it is compiled again");
            return None;
        }
        #[expect(unsafe_code, reason = "wasmtime trusts compiled code blindly")]
        // SAFETY: the tag says that these very bytes are what the compiler gave to `store`, for the same
        // component and engine settings; they are a copy that nobody else can change.
        let loaded = unsafe { Component::deserialize(engine, code) };
        match loaded {
            Ok(component) => {
                // The file used longest ago goes first.
                let _ =
                    File::options().append(true).open(&path).map(|file| file.set_modified(SystemTime::now()));
                Some(component)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error.root_cause(), "a compiled policy does not fit; \
                    it is compiled again");
                None
            }
        }
    }

    /// Keeps the compiled form of a component; where that fails, it is compiled again next time.
    pub(crate) fn store(&self, engine: &wasmtime::Engine, sha256: &str, code: &[u8]) {
        let name = name(engine, sha256);
        let path = self.dir.join(&name);
        let stored = self.make_room(code.len() as u64 + TAG_BYTES as u64).and_then(|()| {
            let tag = hmac::sign(&self.key, &signed(&name, code));
            write_whole(&path, &[tag.as_ref(), code])
        });
        if let Err(error) = stored {
            tracing::warn!(path = %path.display(), %error, "a compiled policy could not be kept");
        }
    }

    /// Removes files until one more of this size has its place.
    fn make_room(&self, size: u64) -> io::Result<()> {
        if size > MAX_CACHE_BYTES {
            return Err(io::Error::other("it is larger than the cache"));
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let path = entry.path();
            let facts = entry.metadata()?;
            if path.extension().is_some_and(|extension| extension == SUFFIX) && facts.is_file() {
                files.push((facts.modified()?, facts.len(), path));
            }
        }
        // Newest first: what fits is kept.
        files.sort_unstable_by(|a, b| b.cmp(a));
        let mut total = size;
        for (index, (_, bytes, path)) in files.into_iter().enumerate() {
            total = total.saturating_add(bytes);
            if total > MAX_CACHE_BYTES || index + 1 >= MAX_FILES {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Of the component, and of everything in `wasmtime` that its code depends on.
fn name(engine: &wasmtime::Engine, sha256: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{sha256}-{:016x}.{SUFFIX}", hasher.finish())
}

/// What the tag covers: a digest, since one buffer of both would copy the code.
fn signed(name: &str, code: &[u8]) -> [u8; 32] {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&(name.len() as u64).to_be_bytes());
    hash.update(name.as_bytes());
    hash.update(code);
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

/// The whole of a regular file that is ours alone; links are not followed, and no FIFO is waited for.
fn read_private(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() || facts.len() > limit {
        return Err(io::Error::other("it is no file of a fitting size"));
    }
    check_private(&facts).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_private(facts: &Metadata) -> Result<(), &'static str> {
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return Err("belongs to another user");
    }
    if facts.mode() & 0o022 != 0 {
        return Err("can be written by others");
    }
    Ok(())
}

/// Removes what a process that was killed left of its files; nothing else would, and it counts against no limit.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            match fs::remove_file(entry.path()) {
                // Its writer was not killed, and is done now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// Writes a file of mode 0600 as a whole or not at all.
fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.persist(path)?;
    Ok(())
}
