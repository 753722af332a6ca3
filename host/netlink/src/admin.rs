//! May this process change routes?

use std::fs;

/// The bit of `CAP_NET_ADMIN` (`linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;

/// Whether the calling thread has `CAP_NET_ADMIN` in its effective set, as `/proc` tells.
///
/// A hint for messages, never a permission: inside a user namespace the capability may not reach the network namespace,
/// and then the kernel still says no. `false` when `/proc` cannot be read.
#[must_use]
pub fn can_admin() -> bool {
    fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| effective(&status))
}

/// Looks the bit up in the text of a `status` file.
fn effective(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_NET_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn reads_the_effective_set() {
        assert!(effective("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n"));
        assert!(effective("CapEff:\t0000000000001000\n"));
        assert!(!effective("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n"));
        assert!(!effective("CapEff:\tnonsense\n"));
        assert!(!effective(""));
    }
}
