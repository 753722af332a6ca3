//! Where things lie by default.

use std::env;
use std::path::PathBuf;

use nix::unistd::geteuid;

/// Where control sockets lie: `/run/overlan` for root, else `$XDG_RUNTIME_DIR/overlan` or `/tmp/overlan-UID`.
pub fn runtime_dir() -> PathBuf {
    if geteuid().is_root() {
        return "/run/overlan".into();
    }
    match folder("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("overlan"),
        None => env::temp_dir().join(format!("overlan-{}", geteuid())),
    }
}

/// The control socket of a node.
pub fn default_control(name: &str) -> PathBuf {
    runtime_dir().join(format!("{name}.sock"))
}

/// The state directory of a node.
pub fn default_state_dir(name: &str) -> PathBuf {
    let base = if geteuid().is_root() {
        PathBuf::from("/var/lib")
    } else {
        folder("XDG_STATE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
            .unwrap_or_else(env::temp_dir)
    };
    base.join(app_name()).join(name)
}

/// The folder name used under the system's own folders.
pub fn app_name() -> &'static str {
    "overlan"
}

/// The host's name, up to its first dot.
pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().split('.').next()?.to_owned())
}

/// An absolute folder named by the environment (relative ones are to be ignored, by the XDG specification).
fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
