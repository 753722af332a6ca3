//! Where things lie by default.

use std::env;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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

/// Checks that not everybody can put a control socket into this folder, or take one away: whoever can is sent what is
/// meant for the node.
///
/// # Errors
/// In words, with what to do.
pub fn check_runtime_dir(dir: &Path) -> Result<(), String> {
    let Ok(facts) = std::fs::metadata(dir) else { return Ok(()) };
    let (for_all, sticky) = (facts.mode() & 0o002 != 0, facts.mode() & 0o1000 != 0);
    match !is_trusted(&facts) || for_all && !sticky {
        true => Err(format!(
            "other users may put files into {} (owner {}, mode {:o}): set XDG_RUNTIME_DIR to a folder of your own, or \
             name another socket",
            dir.display(),
            facts.uid(),
            facts.mode() & 0o7777
        )),
        false => Ok(()),
    }
}

/// Whether a file is this user's or root's.
pub(crate) fn is_trusted(facts: &Metadata) -> bool {
    facts.uid() == 0 || facts.uid() == geteuid().as_raw()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_holds_no_control_socket() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, fine) in [(0o700, true), (0o755, true), (0o777, false), (0o1777, true)] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_runtime_dir(folder.path()).is_ok(), fine, "{mode:o}");
        }
        assert_eq!(check_runtime_dir(&folder.path().join("none")), Ok(()));
    }
}
