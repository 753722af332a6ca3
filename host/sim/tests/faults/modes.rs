//! The failover modes that a policy may choose.

use std::time::Duration;

use overlan_contract::failover::Mode;
use overlan_core::plan;
use overlan_core::policy::{Answer, Question, fallback};
use overlan_sim::{Network, World};

use crate::common::{MS, SECOND, address, check_exactly_once, lan, mode, payload, two};

/// Two members with three adapters each, whose failover policy answers this mode.
fn with_mode(seed: u64, network: Network, chosen: impl Fn(usize) -> Mode + 'static) -> World {
    let mut world = two(seed, 3, network);
    world.policy = Some(Box::new(move |_, question| {
        Some(Ok(match question {
            Question::Assignment(question) => Answer::Assignment(plan::fallback_assignment(question)),
            Question::Sizing(question) => Answer::Sizing(fallback::sizing(
                question.local.mtu.min(question.remote.mtu),
                question.overhead,
            )),
            Question::Failover(question) => {
                let mut answer = fallback::failover(question);
                answer.mode = chosen(question.paths.len());
                Answer::Failover(answer)
            }
        }))
    }));
    world
}

fn exactly_once(name: &str, chosen: impl Fn(usize) -> Mode + Copy + 'static) {
    for seed in 0..40u64 {
        let network = Network { loss_ppm: [0, 50_000][seed as usize % 2], duplicate_ppm: 10_000, ..lan() };
        let mut world = with_mode(seed, network, chosen);
        assert!(world.run_until(10 * SECOND, |world| world.converged()), "{name} {seed}: no convergence");
        let count = 90;
        for token in 0..count {
            match (token, seed % 3) {
                (20, 0) => world.set_adapter(0, 0, false),
                (20, 1) => drop(world.network.dead.insert(address(1, 0))),
                (20, _) => drop(world.network.cut.insert((address(0, 0), address(1, 0)))),
                (50, which) => {
                    world.network.heal();
                    if which == 0 {
                        world.set_adapter(0, 0, true);
                    }
                    world.network.dead.insert(address(1, 1));
                }
                _ => {}
            }
            assert!(world.send(0, 1, mode(token), payload(token), token));
            world.run_for(Duration::from_micros(seed * 331 % 20_000));
        }
        world.run_until(30 * SECOND, |world| world.members[0].fates.len() as u64 == count);
        check_exactly_once(&world, 0..count, &format!("{name}, seed {seed}"));
    }
}

#[test]
fn active_is_exactly_once() {
    exactly_once("active", |_| Mode::Active);
}

#[test]
fn spread_is_exactly_once() {
    exactly_once("spread", |paths| Mode::Spread((0..paths).map(|at| 1 + at as u32).collect()));
}

/// In active mode a path that dies silently delays nothing.
#[test]
fn active_has_no_gap() {
    let mut world = with_mode(3, lan(), |_| Mode::Active);
    assert!(world.run_until(5 * SECOND, |world| world.converged()));
    world.run_for(SECOND);
    for token in 0..100 {
        if token == 50 {
            world.network.dead.insert(address(1, 0));
        }
        assert!(world.send(0, 1, mode(token), vec![0; 8], token));
        world.run_for(2 * MS);
        assert_eq!(world.members[1].received.len() as u64, token + 1, "message {token} is late");
    }
}

/// What each of three paths sent, by weight; a path that was away does not have to catch up.
#[test]
fn spread_follows_the_weights() {
    // Same adapter at both ends: weight 1, 2 or 3; the crossed pairs carry nothing.
    let weights = |paths: usize| {
        Mode::Spread((0..paths).map(|at| if at % 4 == 0 { 1 + at as u32 / 4 } else { 0 }).collect())
    };
    let mut world = with_mode(4, lan(), weights);
    assert!(world.run_until(5 * SECOND, |world| world.converged()));
    world.run_for(SECOND);
    let burst = |world: &mut World, tokens: std::ops::Range<u64>| -> Vec<usize> {
        world.members[1].received.clear();
        for token in tokens {
            assert!(world.send(0, 1, mode(token), vec![0; 1_000], token));
            world.run_for(MS);
        }
        let by = |message: &overlan_core::Message, at| {
            message
                .path
                .is_some_and(|(local, remote)| (local.ip(), remote.ip()) == (address(1, at), address(0, at)))
        };
        (0..3).map(|at| world.members[1].received.iter().filter(|message| by(message, at)).count()).collect()
    };
    let shares = burst(&mut world, 0..1_200);
    assert!(shares[1] > shares[0] * 3 / 2 && shares[2] > shares[1] * 5 / 4, "{shares:?}");
    world.set_adapter(0, 0, false);
    let shares = burst(&mut world, 1_200..3_600);
    assert!(shares[0] == 0 && shares[2] > shares[1] * 5 / 4, "{shares:?}");
    world.set_adapter(0, 0, true);
    world.run_for(10 * SECOND);
    let shares = burst(&mut world, 3_600..4_200);
    assert!(shares[1] > shares[0] * 5 / 4, "the path that came back takes it all: {shares:?}");
}
