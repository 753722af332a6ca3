//! Files that commands are given and cannot take: which, why, and what to do.

use std::fs::File;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use overlan_tests::binary::{overlan, run};

/// None needs a node to say so.
const COMMANDS: [(&[&str], &str); 2] =
    [(&["apply"], "`overlan get`"), (&["policy", "check"], "`overlan policy build`")];

#[test]
fn a_missing_file_has_a_next_step() {
    for (command, next) in COMMANDS {
        let error = run(command.iter().chain(&["/no/such/file"])).fails(1);
        assert!(error.contains("/no/such/file: ") && error.contains(next), "{error}");
    }
}

#[test]
fn what_is_no_file_is_not_waited_for_or_read_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
    let fifo = fifo.to_str().expect("temporary folders have plain names");
    for (command, next) in COMMANDS {
        for path in [fifo, "/dev/zero", "/"] {
            let error = run(command.iter().chain(&[path])).fails(1);
            assert!(error.contains("it is no regular file") && error.contains(next), "{error}");
        }
    }
}

#[test]
fn a_document_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("large.toml");
    File::create(&file).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let error = run(["apply".as_ref(), file.as_os_str()]).fails(1);
    assert!(error.contains("at most 8 MiB"), "{error}");
}

/// What was to be printed could not be, which is no success and no panic.
#[test]
fn a_full_device_is_told() {
    let mut demo = Command::new(overlan());
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let ran = demo.arg("demo").stdin(Stdio::null()).stdout(full).output().expect("it starts");
    let error = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{error}");
    assert!(error.contains("No space left on device") && !error.contains("panicked"), "{error}");
}
