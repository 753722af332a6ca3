//! Tests that cannot run here say so, loudly, and are counted.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

/// Ends the test early, and loudly, where network namespaces cannot be made.
#[macro_export]
macro_rules! skip_without_root {
    () => {
        if let Some(missing) = $crate::skip::missing_for_the_lab() {
            $crate::skip::announce(module_path!(), line!(), missing);
            return;
        }
    };
}

/// What the namespace lab lacks here, if anything.
pub fn missing_for_the_lab() -> Option<&'static str> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("root and ip");
    }
    let works = |program: &str, argument: &str| {
        Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
    };
    if !works("ip", "-V") {
        return Some("root and ip");
    }
    if !works("nft", "-v") {
        return Some("root and nft");
    }
    let probe = format!("ovl-{}-probe", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &probe]).output();
    let made = made.is_ok_and(|output| output.status.success());
    let _ = Command::new("ip").args(["netns", "del", &probe]).output();
    (!made).then_some("root with CAP_SYS_ADMIN, to make network namespaces")
}

/// Says that a test is skipped, past the runner's capture of output, and notes it in the file that
/// `OVERLAN_SKIPS` names. With `OVERLAN_LAB=require` it fails instead.
///
/// # Panics
/// With `OVERLAN_LAB=require`.
pub fn announce(test: &str, line: u32, missing: &str) {
    let text = format!("SKIPPED (needs {missing}): {test}, line {line}\n");
    assert!(std::env::var("OVERLAN_LAB").as_deref() != Ok("require"), "{text}");
    let _ = std::io::stderr().write_all(text.as_bytes());
    if let Some(path) = std::env::var_os("OVERLAN_SKIPS")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(text.as_bytes());
    }
}
