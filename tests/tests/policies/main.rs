//! The authors' side of policies through the program: new, test, bench. Building is `tests/starters`.

mod bench;
mod new;
mod test;
