//! Who may have a handshake worked on: a flood costs a bounded share of the processor, and shuts nobody out who receives
//! at the address it sends from.

use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;

use crate::time::Instant;

/// Handshakes answered in one go without asking for a cookie.
const BURST: u32 = 64;
/// And per second; each costs about as much as five X25519 products.
const RATE: u32 = 128;
/// Handshakes worked on for one proven address in one go.
const SOURCE_BURST: u32 = 8;
/// And per second.
const SOURCE_RATE: u32 = 4;
/// Addresses that are kept count of; the one silent for longest gives way.
const MAX_SOURCES: usize = 1_024;
/// A cookie is good for this long, and for as long again.
const ROTATION: Duration = Duration::from_secs(60);

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, burst: u32, rate: u32) -> bool {
        let pause = Duration::from_secs(1) / rate;
        let earned = now.since(self.filled).as_nanos() / pause.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(earned).min(burst);
        self.filled = if self.tokens == burst { now } else { self.filled + pause * earned };
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}

/// What to do with the opening of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Work on it.
    Pass,
    /// Ask for a cookie.
    AskCookie,
    /// Drop it.
    Refuse,
}

/// The gate.
pub(super) struct Gate {
    all: Bucket,
    sources: BTreeMap<IpAddr, Bucket>,
    secrets: [[u8; 32]; 2],
    rotated: Instant,
}

impl Gate {
    pub(super) fn new(secrets: [[u8; 32]; 2], now: Instant) -> Self {
        let all = Bucket { tokens: BURST, filled: now };
        Gate { all, sources: BTreeMap::new(), secrets, rotated: now }
    }

    /// The secrets of cookies: the first makes new ones, both check.
    pub(super) fn secrets(&mut self, now: Instant, fresh: impl FnOnce() -> [u8; 32]) -> [[u8; 32]; 2] {
        if now.since(self.rotated) >= ROTATION {
            self.rotated = now;
            self.secrets = [fresh(), self.secrets[0]];
        }
        self.secrets
    }

    /// `proven`: the sender receives at this address.
    pub(super) fn admit(&mut self, now: Instant, source: IpAddr, proven: bool) -> Verdict {
        if !proven {
            let may = self.all.take(now, BURST, RATE);
            return if may { Verdict::Pass } else { Verdict::AskCookie };
        }
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            let oldest = self.sources.iter().min_by_key(|(_, bucket)| bucket.filled).map(|(&ip, _)| ip);
            oldest.map(|ip| self.sources.remove(&ip));
        }
        let bucket = self.sources.entry(source).or_insert(Bucket { tokens: SOURCE_BURST, filled: now });
        if bucket.take(now, SOURCE_BURST, SOURCE_RATE) { Verdict::Pass } else { Verdict::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_flood_meets_cookies_and_a_proven_one_its_own_limit() {
        let mut gate = Gate::new([[0; 32]; 2], Instant::ZERO);
        let flood = (0..1_000).map(|_| gate.admit(Instant::ZERO, FLOOD, false));
        let passed = flood.filter(|verdict| *verdict == Verdict::Pass).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(gate.admit(Instant::ZERO, OTHER, false), Verdict::AskCookie);
        let proven = (0..1_000).map(|_| gate.admit(Instant::ZERO, FLOOD, true));
        assert_eq!(proven.filter(|verdict| *verdict == Verdict::Pass).count(), SOURCE_BURST as usize);
        assert_eq!(gate.admit(Instant::ZERO, FLOOD, true), Verdict::Refuse);
        assert_eq!(gate.admit(Instant::ZERO, OTHER, true), Verdict::Pass);
        let later = Instant::ZERO + Duration::from_secs(1);
        assert_eq!(gate.admit(later, FLOOD, true), Verdict::Pass);
        let passed = (0..1_000).filter(|_| gate.admit(later, FLOOD, false) == Verdict::Pass).count();
        assert_eq!(passed, BURST as usize, "a second's share is capped by the burst");
    }

    #[test]
    fn addresses_are_bounded_and_secrets_rotate() {
        let mut gate = Gate::new([[1; 32], [0; 32]], Instant::ZERO);
        for index in 0..10_000_u32 {
            gate.admit(Instant::ZERO, IpAddr::from(index.to_be_bytes()), true);
        }
        assert_eq!(gate.sources.len(), MAX_SOURCES);
        assert_eq!(gate.secrets(Instant::ZERO, || [2; 32]), [[1; 32], [0; 32]]);
        assert_eq!(gate.secrets(Instant::ZERO + ROTATION, || [2; 32]), [[2; 32], [1; 32]]);
    }
}
