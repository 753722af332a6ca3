//! Damaged files: whatever is cut or flipped, the verdict is a sentence, and never a panic.

use std::sync::LazyLock;
use std::time::Duration;

use overlan_contract::Kind;
use overlan_guests::good;
use overlan_policy::{Engine, Limits, LoadError, check, inspect};
use proptest::prelude::*;
use wasmparser::{Parser, Payload};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().expect("the engine runs here"));

fn verdict(file: &[u8]) -> Result<(), LoadError> {
    let limits = Limits {
        start_deadline: Duration::from_millis(20),
        fuel_base: 1_000_000,
        memory_bytes: 16 << 20,
        ..Limits::default()
    };
    let outcome = check(&ENGINE, file, &[], limits).map(drop);
    if let Err(error) = &outcome {
        let said = error.to_string();
        assert!(!said.contains('\n') && said.len() > 20, "{said:?}");
    }
    if let Some(problem) = inspect(file).problem {
        assert!(!problem.to_string().contains('\n'));
    }
    outcome
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(Kind::ALL.to_vec()), any::<bool>())
        .prop_map(|(kind, module)| if module { good(kind).module() } else { good(kind).component() })
}

/// Bytes of `file` that a policy needs: all but the custom sections at its end that only inform
/// (`component-type` does more: it makes a core module a component).
fn needed(file: &[u8]) -> usize {
    let ends = Parser::new(0).parse_all(file).filter_map(|payload| match payload.expect("a good file") {
        Payload::CustomSection(custom) => {
            custom.name().starts_with("component-type").then(|| custom.range().end)
        }
        payload => payload.as_section().map(|(_, range)| range.end),
    });
    ends.max().expect("a good file has sections")
}

#[test]
fn only_sections_that_inform_may_be_missing() {
    for kind in Kind::ALL {
        for file in [good(kind).component(), good(kind).module()] {
            let needed = needed(&file);
            assert!(verdict(&file[..needed]).is_ok(), "{kind}: {needed} of {} bytes", file.len());
            assert!(verdict(&file[..needed - 1]).is_err(), "{kind}: one byte less than {needed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_cut_file_is_refused(file in file(), keep in 0.0..1.0_f64) {
        prop_assert!(verdict(&file[..(needed(&file) as f64 * keep) as usize]).is_err());
    }

    #[test]
    fn flipped_bits_do_no_harm(file in file(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..5)) {
        let mut file = file;
        for (place, bit) in flips {
            let place = place.index(file.len());
            file[place] ^= 1 << bit;
        }
        // A flip in a name or a constant may leave a sound policy.
        let _ = verdict(&file);
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        let file = if header { [b"\0asm\x0d\0\x01\0", &noise[..]].concat() } else { noise };
        prop_assert!(verdict(&file).is_err());
    }
}
