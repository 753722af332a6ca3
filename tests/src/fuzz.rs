//! Mutated input for decoders, without a nightly compiler: a seeded generator and the mutations that find
//! most in formats of lengths and counts. A failure prints the seed and the input.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::corpus::from_hex;

/// Largest input that mutations grow to.
const MAX_INPUT: usize = 4_096;
/// Runs of each target where `OVERLAN_FUZZ_RUNS` does not say otherwise.
const RUNS: u64 = 20_000;

/// A small seeded generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound.max(1) as u64) as usize
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.next_u64() as u8
    }
}

/// Feeds a target each input of the corpus, then mutations of them. `OVERLAN_FUZZ_RUNS` and
/// `OVERLAN_FUZZ_SEED` set how many and which; where `OVERLAN_FUZZ_SECONDS` is set, it goes on for so long and prints
/// how many there were. `OVERLAN_FUZZ_INPUT` is the one input to feed, in hexadecimal as a finding prints it.
///
/// # Panics
/// As the target does, after printing the input that made it.
pub fn fuzz(name: &str, corpus: &[Vec<u8>], target: impl FnMut(&[u8])) {
    fuzz_costly(name, 1, corpus, target);
}

/// As [`fuzz`], of a target whose inputs cost as much as so many of a decoder's: there are fewer of them.
///
/// # Panics
/// As the target does, after printing the input that made it.
pub fn fuzz_costly(name: &str, cost: u64, corpus: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let runs = variable("OVERLAN_FUZZ_RUNS").unwrap_or(RUNS).div_ceil(cost);
    let until = variable("OVERLAN_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seed = variable("OVERLAN_FUZZ_SEED").unwrap_or(1);
    let mut random = Random::new(seed);
    let mut run = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("fuzzing {name}, seed {seed}, broke on {} bytes: {hex}", input.len());
            resume_unwind(panic);
        }
    };
    if let Ok(hex) = std::env::var("OVERLAN_FUZZ_INPUT") {
        return run(&from_hex(&hex).expect("hexadecimal digits"));
    }
    corpus.iter().for_each(|input| run(input));
    let mut done = 0;
    while until.map_or(done < runs, |until| Instant::now() < until) {
        run(&mutant(corpus, &mut random));
        done += 1;
    }
    if until.is_some() {
        println!("fuzzing {name}, seed {seed}: {done} inputs, no finding");
    }
}

/// One to eight mutations of an input of the corpus, or noise.
fn mutant(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = match corpus {
        [] => (0..random.below(256)).map(|_| random.byte()).collect(),
        _ if random.below(32) == 0 => (0..random.below(256)).map(|_| random.byte()).collect(),
        _ => corpus[random.below(corpus.len())].clone(),
    };
    for _ in 0..=random.below(8) {
        mutate(&mut input, corpus, random);
    }
    input.truncate(MAX_INPUT);
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(8) {
        0 => input.truncate(at),
        1 => input.insert(at, random.byte()),
        2 if !input.is_empty() => drop(input.remove(at)),
        3 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        // Lengths, counts and kinds break at their edges.
        4 if !input.is_empty() => input[at] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff][random.below(7)],
        5 if input.len() >= at + 2 => {
            let length =
                (random.below(4) as u16).wrapping_sub(1) ^ (input.len() as u16 * random.below(2) as u16);
            input[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        6 => {
            let end = at + random.below(input.len() - at + usize::from(input.is_empty()));
            let piece = input[at..end.min(input.len())].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, piece);
        }
        7 if !corpus.is_empty() => {
            let other = &corpus[random.below(corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len())..]);
        }
        _ => input.push(random.byte()),
    }
}
