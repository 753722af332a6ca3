//! Random plays. An outbox against an inbox over a network that loses, delays and doubles, with consumers that read
//! when they like; the same with a peer that reports what never was; and an inbox alone under a hostile peer. Between
//! any two steps both ends hold what their counters say.
//! `OVERLAN_FUZZ_RUNS` and `OVERLAN_FUZZ_SEED` set how long and where from.

extern crate std;

mod intrusion;
mod play;

use alloc::string::String;
use core::any::Any;

use overlan_wire::{MessageMode, NodeId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use intrusion::Intrusion;
use play::Play;

/// A decoder takes so many inputs in the time of one play.
const COST: u64 = 100;
/// Steps of a play before its end.
const STEPS: u64 = 400;
const MODES: [MessageMode; 3] = [MessageMode::Unreliable, MessageMode::Reliable, MessageMode::Ordered];
const PEER: NodeId = NodeId([1; 16]);

/// Nothing is lost of what is to arrive, nothing arrives twice, and each reliable message has one fate, a true one.
#[test]
fn both_ends_agree() {
    plays(|seed| Play::new(seed, false).act());
}

/// Whatever a peer says that it accepted, no message has two fates, and the outbox's counters hold.
#[test]
fn lies_about_what_was_accepted_do_no_harm() {
    plays(|seed| Play::new(seed, true).act());
}

/// Whatever a peer sends, no reliable message is given out twice, and the inbox's counters hold.
#[test]
fn contradictions_do_no_harm_to_an_inbox() {
    plays(|seed| Intrusion::new(seed).act());
}

/// Plays from one seed after the other; says which one broke.
fn plays(play: fn(u64)) {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let runs = variable("OVERLAN_FUZZ_RUNS").unwrap_or(20_000).div_ceil(COST);
    let first = variable("OVERLAN_FUZZ_SEED").unwrap_or(1);
    for seed in first..first + runs {
        if let Err(panic) = std::panic::catch_unwind(|| play(seed)) {
            panic!("seed {seed}: {}", words(&*panic));
        }
    }
}

/// What a panic said.
fn words(panic: &dyn Any) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or("no word")
}

/// Chance.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// One time of so many.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}
