//! The search against paths of any size, and against loss.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const WAITS: Waits = Waits { usual: PROBE_WAIT, urgent: Duration::from_millis(20) };

/// Drives a search against a path that passes `real` bytes; returns what it settles on.
fn settle(search: &mut MtuSearch, real: usize, mut now: Instant) -> usize {
    let end = now + Duration::from_secs(30);
    while now < end {
        if let Some((size, _)) = search.due(now) {
            search.note_sent(7, size, now);
            if size <= real {
                search.handle_pong(7, now);
            }
        }
        now = now + Duration::from_millis(50);
        search.handle_timeout(now, WAITS, true, Some(now));
    }
    search.confirmed()
}

#[test]
fn finds_the_path_mtu() {
    for (limit, real) in [
        (1_472, 1_472),
        (8_972, 1_472),
        (1_472, 1_252),
        (65_507, 65_507),
        (1_472, 1_200),
        (1_472, 1_000),
        (972, 972),
    ] {
        let mut search = MtuSearch::new();
        search.set_limit(limit, Instant::ZERO);
        let found = settle(&mut search, real, Instant::ZERO);
        assert!(found <= real && found + usize::from(PRECISION) > real, "{limit} {real}: {found}");
    }
}

/// Each probe is given up before its pong comes, and the next is under way.
#[test]
fn a_late_pong_counts() {
    let mut search = MtuSearch::new();
    search.set_limit(1_472, Instant::ZERO);
    let mut now = Instant::ZERO;
    // The first found no larger one to pass: the second is the base.
    for token in 0..2 {
        let (size, _) = search.due(now).expect("one is due");
        search.note_sent(token, size, now);
        now = now + PROBE_WAIT;
        search.handle_timeout(now, WAITS, true, None);
    }
    search.handle_pong(0, now);
    assert_eq!(search.confirmed(), BASE_DATAGRAM, "only the last is remembered");
    search.handle_pong(1, now);
    assert_eq!((search.confirmed(), search.due(now)), (BASE_DATAGRAM, Some((1_472, false))));
}

#[test]
fn a_black_hole_is_noticed() {
    let mut search = MtuSearch::new();
    search.set_limit(1_472, Instant::ZERO);
    assert_eq!(settle(&mut search, 1_472, Instant::ZERO), 1_472);
    let found = settle(&mut search, 1_252, Instant::ZERO + Duration::from_secs(60));
    assert!((1_200..=1_252).contains(&found), "{found}");
}

#[test]
fn messages_go_in_base_datagrams_while_the_size_is_in_doubt() {
    let mut search = MtuSearch::new();
    search.set_limit(8_972, Instant::ZERO);
    settle(&mut search, 8_972, Instant::ZERO);
    let second = |number| Instant::ZERO + Duration::from_secs(number);
    // A full datagram may be a little smaller than what was confirmed.
    let size = 8_960;
    for sign in [MtuSearch::note_passed as fn(&mut MtuSearch, usize), |search, _| {
        search.handle_pong(9, Instant::ZERO);
    }] {
        for times in 1..DOUBTFUL.into() {
            search.suspect(Large { size, sent: second(times) }, second(times + 1));
            search.suspect(Large { size, sent: second(times) }, second(times + 2));
        }
        assert_eq!(search.usable(), 8_972, "losses are just that, and a stall is one");
        search.suspect(Large { size, sent: second(10) }, second(11));
        search.note_passed(1_472);
        assert_eq!((search.usable(), search.confirmed()), (BASE_DATAGRAM, 8_972));
        search.note_sent(9, 8_972, Instant::ZERO);
        sign(&mut search, size);
        assert_eq!(search.usable(), 8_972);
    }
}

#[test]
fn a_size_in_doubt_is_confirmed_before_larger_ones_are_searched() {
    let mut search = MtuSearch::new();
    search.set_limit(1_472, Instant::ZERO);
    let found = settle(&mut search, 1_420, Instant::ZERO);
    let second = |number| Instant::ZERO + Duration::from_secs(number);
    search.restart(second(100));
    for times in 100..100 + u64::from(DOUBTFUL) {
        search.suspect(Large { size: found, sent: second(times) }, second(times));
    }
    assert_eq!(
        (search.due(second(110)).map(|(size, _)| size), search.usable()),
        (Some(found), BASE_DATAGRAM)
    );
    search.note_sent(1, found, second(110));
    search.handle_pong(1, second(110));
    assert_eq!((search.due(second(110)).map(|(size, _)| size), search.usable()), (Some(1_472), found));
    for times in 110..110 + u64::from(DOUBTFUL) {
        search.suspect(Large { size: found, sent: second(times) }, second(times));
    }
    search.restart(second(120));
    assert_eq!(
        (search.due(second(120)).map(|(size, _)| size), search.usable()),
        (Some(1_472), found),
        "a new start has no doubts"
    );
}

/// Drives the search for so many probes of which, by chance, some are answered; how often the path was narrow at their end.
fn narrowed(loss: f64, seed: u64) -> bool {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut search = MtuSearch::new();
    search.set_limit(1_472, Instant::ZERO);
    settle(&mut search, 1_472, Instant::ZERO);
    let mut now = Instant::ZERO + Duration::from_secs(100);
    for _ in 0..100 {
        // Three messages in a row were lost.
        for _ in 0..DOUBTFUL {
            now = now + Duration::from_millis(20);
            search.suspect(Large { size: 800, sent: now }, now);
        }
        assert_eq!(search.usable(), LEAST_DATAGRAM);
        let mut answered = None;
        while search.usable() < BASE_DATAGRAM && !search.is_narrow() {
            let passes = |rng: &mut ChaCha8Rng| !rng.random_bool(loss) && !rng.random_bool(loss);
            let (size, paired) = search.due(now).expect("it is urgent");
            assert_eq!((size, paired), (BASE_DATAGRAM, true));
            search.note_sent(1, size, now);
            if passes(&mut rng) {
                search.handle_pong(1, now);
            }
            answered = if passes(&mut rng) { Some(now) } else { answered };
            now = now + WAITS.urgent;
            search.handle_timeout(now, WAITS, true, answered);
        }
    }
    search.is_narrow()
}

#[test]
fn loss_makes_no_path_narrow() {
    assert_eq!((0..100).filter(|&seed| narrowed(0.15, seed)).count(), 0, "in 10,000 times");
    let narrowed = (0..100).filter(|&seed| narrowed(0.3, seed)).count();
    assert!(narrowed <= 4, "{narrowed} of 10,000 times");
}

#[test]
fn a_narrow_path_is_searched_and_widens_again() {
    let mut search = MtuSearch::new();
    search.set_limit(1_472, Instant::ZERO);
    settle(&mut search, 1_472, Instant::ZERO);
    let mut now = Instant::ZERO + Duration::from_secs(60);
    for _ in 0..DOUBTFUL {
        search.suspect(Large { size: 1_196, sent: now }, now);
        now = now + Duration::from_millis(20);
    }
    assert_eq!((search.usable(), search.is_narrow()), (LEAST_DATAGRAM, false));
    let begun = now;
    while !search.is_narrow() {
        let (size, _) = search.due(now).expect("the next");
        search.note_sent(1, size, now);
        let sent = now;
        now = now + WAITS.urgent;
        search.handle_timeout(now, WAITS, true, Some(sent));
    }
    assert_eq!(now.since(begun), u32::from(NARROW_PROBES) * WAITS.urgent);
    let found = settle(&mut search, 1_000, now);
    assert!((984..=1_000).contains(&found), "{found}");
    assert!(search.is_narrow());
    assert_eq!(settle(&mut search, 1_472, now + Duration::from_secs(60)), 1_472);
    assert!(!search.is_narrow());
}

#[test]
fn what_the_kernel_refuses_is_not_tried() {
    let mut search = MtuSearch::new();
    search.set_limit(1_472, Instant::ZERO);
    settle(&mut search, 1_472, Instant::ZERO);
    search.refuse(1_472, Instant::ZERO);
    assert_eq!((search.usable(), search.is_narrow()), (BASE_DATAGRAM, false));
    search.refuse(1_100, Instant::ZERO);
    assert_eq!((search.usable(), search.is_narrow()), (LEAST_DATAGRAM, true));
}
