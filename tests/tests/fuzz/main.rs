//! Fuzzing on the stable compiler: seeded mutations, short in `tests/run`, as long as one likes elsewhere.
//! `OVERLAN_FUZZ_RUNS`, `OVERLAN_FUZZ_SECONDS` and `OVERLAN_FUZZ_SEED` set how long and where from; an hour of each:
//!
//!     OVERLAN_FUZZ_SECONDS=3600 cargo test --release -p overlan-tests --test fuzz -- --nocapture

mod decoders;
mod documents;
mod sessions;
