//! Finds the program under test and runs its commands.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::wait::within;

/// No command that ends by itself may take longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The program: `OVERLAN_BIN`, else `overlan` of the build that this test belongs to, else of the
/// other profile beside it.
///
/// # Panics
/// Where there is none.
pub fn overlan() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(named) = std::env::var_os("OVERLAN_BIN") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "OVERLAN_BIN names {}, which is no file", named.display());
        return named;
    }
    // target/PROFILE/deps/this-test
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    let target = profile.parent().expect("a profile's folder lies in the target folder");
    let candidates = [profile.join("overlan"), target.join("debug/overlan"), target.join("release/overlan")];
    candidates.iter().find(|path| path.is_file()).cloned().unwrap_or_else(|| {
        panic!(
            "no program to test: `cargo build -p overlan` first, or name it in OVERLAN_BIN ({candidates:?})"
        )
    })
}

/// What a command gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit status; `None`: ended by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Standard output of a command that must succeed.
    ///
    /// # Panics
    /// Where it did not.
    pub fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "the command failed: {self:#?}");
        self.stdout
    }

    /// Standard output as JSON, of a command that must succeed.
    ///
    /// # Panics
    /// Where it failed or is not JSON.
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// Standard error of a command that must fail with `status`.
    ///
    /// # Panics
    /// Where it ended otherwise, or said nothing.
    pub fn fails(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{self:#?}");
        assert!(!self.stderr.trim().is_empty(), "it failed without a word: {self:#?}");
        self.stderr
    }
}

/// Runs `overlan` with arguments, without standard input.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(overlan());
    command.args(arguments);
    finish(&mut command)
}

/// Runs `overlan` with arguments inside a network namespace.
pub fn run_in<S: AsRef<std::ffi::OsStr>>(namespace: &str, arguments: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(overlan()).args(arguments);
    finish(&mut command)
}

/// Runs a command to its end, which must come soon.
///
/// # Panics
/// Where it cannot be started or does not end; it is killed then.
pub fn finish(command: &mut Command) -> Ran {
    finish_with(command, Stdio::null(), Stdio::piped())
}

/// As [`finish`], with a file as standard input.
///
/// # Panics
/// As there.
pub fn finish_fed(command: &mut Command, file: File) -> Ran {
    finish_with(command, file.into(), Stdio::piped())
}

/// As [`finish`], with nobody who reads standard output.
///
/// # Panics
/// As there.
pub fn finish_unread(command: &mut Command) -> Ran {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    finish_with(command, Stdio::null(), writer.into())
}

fn finish_with(command: &mut Command, stdin: Stdio, stdout: Stdio) -> Ran {
    let started = command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn();
    let mut child = started.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = watch.recv_timeout(COMMAND_LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL);
        }
        late
    });
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("output of a child");
    drop(ended);
    let late = watchdog.join().expect("the watchdog does not panic");
    assert!(!late, "{command:?} did not end in {COMMAND_LIMIT:?}");
    output.into()
}

/// Waits for a child to end by itself; `None` where it does not.
pub fn wait_child(child: &mut std::process::Child, limit: Duration) -> Option<std::process::ExitStatus> {
    within(limit, || child.try_wait().expect("a child can be waited for"))
}
