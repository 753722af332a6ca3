//! Compiled plugins on disk: used again, and never used if anything about them is odd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::guests::{questions, sizing};
use overlan_policy::{AotCache, AotError, Engine, Limits, Plugin, Sizing};

fn engine(dir: &Path) -> Engine {
    Engine::with_cache(AotCache::open(dir).unwrap()).unwrap()
}

/// Loads and asks it; the cache must not change what it answers.
fn load(dir: &Path, datagram: u32) {
    let file = sizing(datagram, 0, 65_536).component();
    let mut plugin = Plugin::<Sizing>::load(&engine(dir), "x", &file, &[], Limits::default()).unwrap();
    assert_eq!(plugin.ask(&questions::sizing()).unwrap().answer.datagram, datagram);
}

fn compiled(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "aot")).collect();
    files.sort();
    files
}

#[test]
fn a_compiled_plugin_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    load(&dir, 1_300);
    let files = compiled(&dir);
    assert_eq!(files.len(), 1);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let (bytes, inode) = (fs::read(&files[0]).unwrap(), inode(&files[0]));
    load(&dir, 1_300);
    assert_eq!((fs::read(&files[0]).unwrap(), self::inode(&files[0])), (bytes, inode), "not written again");
    load(&dir, 1_400);
    assert_eq!(compiled(&dir).len(), 2);
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

#[test]
fn what_is_odd_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    load(&dir, 1_300);
    let first = compiled(&dir).remove(0);
    let good = fs::read(&first).unwrap();
    load(&dir, 1_400);
    let second = compiled(&dir).into_iter().find(|path| *path != first).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let other = fs::read(&second).unwrap();
    for bad in [&b""[..], &good[..10], &good[..good.len() / 2], &flipped, &other, b"no code at all"] {
        fs::write(&first, bad).unwrap();
        load(&dir, 1_300);
        assert_eq!(fs::read(&first).unwrap()[32..], good[32..], "it was replaced");
    }
    // Code that others may write, and a link to it.
    fs::set_permissions(&first, fs::Permissions::from_mode(0o666)).unwrap();
    load(&dir, 1_300);
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&first, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &first).unwrap();
    load(&dir, 1_300);
    assert!(!first.is_symlink());
    // What nobody ever writes to.
    for name in [first.clone(), dir.join("key")] {
        fs::remove_file(&name).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &name, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        load(&dir, 1_300);
        assert!(fs::metadata(&name).unwrap().is_file());
    }
    // With another key nothing holds that was written before.
    let before = inode(&first);
    fs::write(dir.join("key"), "short").unwrap();
    load(&dir, 1_300);
    assert_ne!(inode(&first), before);
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let error = AotCache::open(&dir).unwrap_err();
    assert!(matches!(error, AotError::NotPrivate { .. }) && error.to_string().contains("written by others"));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    assert!(AotCache::open(&link).unwrap_err().to_string().contains("no folder"));
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(AotCache::open(&folder.path().join("file")).is_err());
    assert!(matches!(AotCache::open(&folder.path().join("no/aot")), Err(AotError::Io { .. })));
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    load(&dir, 1_300);
    let before = compiled(&dir);
    fs::write(dir.join(".unfinished-x1y2z3"), [0; 1_000]).unwrap();
    load(&dir, 1_300);
    assert_eq!(compiled(&dir), before);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), before.len() + 1, "the compiled plugin and the key");
}

#[test]
fn old_files_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    AotCache::open(&dir).unwrap();
    for number in 0..100 {
        fs::write(dir.join(format!("{number}.aot")), "old").unwrap();
    }
    load(&dir, 1_300);
    assert_eq!(compiled(&dir).len(), 64);
    load(&dir, 1_400);
    assert_eq!(compiled(&dir).len(), 64);
}
