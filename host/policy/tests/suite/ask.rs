//! Good guests, and hostile ones when asked: each fault is told apart, and the next question works.

use std::time::{Duration, Instant};

use crate::guests::{self, Guest, LOOP, ok, questions, sizing};
use overlan_contract::Kind;
use overlan_contract::failover::Mode;
use overlan_policy::{Assignment, Engine, Failover, Fault, Limits, LoadError, Plugin, Policy, Sizing};

fn limits() -> Limits {
    Limits {
        fuel_base: 5_000_000,
        deadline: Duration::from_millis(50),
        start_deadline: Duration::from_millis(100),
        memory_bytes: 16 << 20,
        ..Limits::default()
    }
}

fn load<P: Policy>(guest: &Guest) -> Result<Plugin<P>, LoadError> {
    Plugin::load(&Engine::new().unwrap(), "test", &guest.component(), &[("k".into(), "v".into())], limits())
}

fn fault(guest: &Guest) -> Fault {
    let mut plugin = load::<Sizing>(guest).unwrap();
    let first = plugin.ask(&questions::sizing()).unwrap_err();
    assert_eq!(
        plugin.ask(&questions::sizing()).unwrap_err().kind(),
        first.kind(),
        "a new instance does the same"
    );
    assert!(!first.to_string().contains('\n'));
    first
}

fn good() -> Guest {
    sizing(1_472, 1_200, 65_536)
}

#[test]
fn a_question_goes_in_one_piece_to_whoever_takes_it_so() {
    let load = |decide: &str, component: bool| {
        let other = r#"(data (i32.const 256) "\00\00\00\00\b0\04\00\00\b0\04\00\00\b0\04\00\00")"#;
        let module = good().extra(other).module_packed(decide);
        let file = if component { guests::encode(&module) } else { module };
        Plugin::<Sizing>::load(&Engine::new().unwrap(), "test", &file, &[], limits()).unwrap()
    };
    let bytes = 2 * 25 + 6 + 8;
    let exact = format!("(if (i32.ne (local.get 1) (i32.const {bytes})) (then unreachable)) i32.const 256");
    for component in [false, true] {
        let mut plugin = load(&exact, component);
        assert_eq!(plugin.ask(&questions::sizing()).unwrap().answer.datagram, 1_200);
        assert!(plugin.report().optional("packed-sizing").is_some() || !component);

        let mut plugin = load("unreachable", component);
        assert!(matches!(plugin.ask(&questions::sizing()), Err(Fault::Trap { .. })));
        // The plain way answers 1,472: it is not asked in its place.
        assert!(matches!(plugin.ask(&questions::sizing()), Err(Fault::Trap { .. })));

        let mut plugin = load(LOOP, component);
        assert!(matches!(plugin.ask(&questions::sizing()), Err(Fault::Deadline(_))));
    }
}

#[test]
fn answers_of_every_kind() {
    let mut plugin = load::<Sizing>(&good()).unwrap();
    for _ in 0..3 {
        let answered = plugin.ask(&questions::sizing()).unwrap();
        assert_eq!((answered.answer.datagram, answered.answer.burst), (1_472, 65_536));
        assert_eq!(answered.fuel, None);
    }

    // order at 256, mode `spread` of 260, timings at 268.
    let answer = ok(&[256, 1, 2, 260, 1, 268, 1]);
    let guest = Guest::new(Kind::Failover, &answer)
        .extra(r#"(data (i32.const 260) "\05\00\00\00\00\00\00\00\a0\86\01\00\50\c3\00\00\03\00\00\00\e8\03\00\00")"#);
    let answer = load::<Failover>(&guest).unwrap().ask(&questions::failover(1)).unwrap().answer;
    assert_eq!((answer.order, answer.mode), (vec![0], Mode::Spread(vec![5])));
    assert_eq!((answer.timings[0].probe_interval_us, answer.timings[0].hold_down_ms), (100_000, 1_000));

    let mut plugin = load::<Assignment>(&guests::assignment()).unwrap();
    let answered = plugin.ask(&questions::assignment(3, 4)).unwrap();
    assert_eq!(answered.answer.owners, vec![vec![0]; 4]);
}

#[test]
fn a_module_with_metadata_is_made_a_component() {
    let engine = Engine::new().unwrap();
    let mut plugin = Plugin::<Sizing>::load(&engine, "core", &good().module(), &[], limits()).unwrap();
    assert_eq!(plugin.ask(&questions::sizing()).unwrap().answer.coalesce, 1_200);
}

#[test]
fn assignment_is_fresh_and_its_fuel_equal() {
    // Burns more fuel with each question that one instance sees.
    let guest = guests::assignment();
    let body = format!(
        "(global.set $seen (i32.add (global.get $seen) (i32.const 1)))
         (if (i32.gt_u (global.get $seen) (i32.const 1)) (then unreachable)) {}",
        guest.decide.replacen("(local $i i32)", "", 1)
    );
    let guest =
        guest.decide(&format!("(local $i i32) {body}")).extra("(global $seen (mut i32) (i32.const 0))");
    let question = questions::assignment(3, 4);
    let [mut one, mut two] = [load::<Assignment>(&guest).unwrap(), load::<Assignment>(&guest).unwrap()];
    let first = one.ask(&question).unwrap();
    assert!(first.fuel.unwrap() > 0);
    for answered in [one.ask(&question).unwrap(), two.ask(&question).unwrap()] {
        assert_eq!((answered.fuel, &answered.answer), (first.fuel, &first.answer));
    }
}

#[test]
fn other_kinds_keep_their_instance_until_a_fault() {
    // Counts its calls and traps at the third.
    let guest = good()
        .decide(
            "(global.set $seen (i32.add (global.get $seen) (i32.const 1)))
             (if (i32.eq (global.get $seen) (i32.const 3)) (then unreachable)) i32.const 0",
        )
        .extra("(global $seen (mut i32) (i32.const 0))");
    let mut plugin = load::<Sizing>(&guest).unwrap();
    let mut ask = || (plugin.ask(&questions::sizing()).is_ok(), plugin.was_fresh());
    let outcomes: Vec<_> = (0..6).map(|_| ask()).collect();
    let instance = [(true, true), (true, false), (false, false)];
    assert_eq!(outcomes, [instance, instance].concat());
    plugin.restart().unwrap();
    assert!(plugin.ask(&questions::sizing()).is_ok() && plugin.was_fresh());
}

#[test]
fn a_loop_is_interrupted_by_the_deadline() {
    let begun = Instant::now();
    assert_eq!(fault(&good().decide(LOOP)), Fault::Deadline(Duration::from_millis(50)));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_loop_in_an_assignment_runs_out_of_fuel() {
    let mut plugin = load::<Assignment>(&guests::assignment().decide(LOOP)).unwrap();
    let fault = plugin.ask(&questions::assignment(2, 3)).unwrap_err();
    assert_eq!(fault, Fault::OutOfFuel(5_000_000 + 2 * 3 * 3_000));
}

/// A loop that only grows or logs would meet the deadline first, were that as cheap as adding.
#[test]
fn growing_and_logging_take_fuel_for_the_hosts_work() {
    let table = "(table $t 1 funcref)";
    for (wanted, fuel) in [
        ("(drop (memory.grow (i32.const 0)))", 255),
        ("(drop (memory.grow (i32.const 1000)))", 255_255),
        ("(drop (table.grow $t (ref.null func) (i32.const 0)))", 255),
        ("(drop (table.grow $t (ref.null func) (i32.const 1000000)))", 1_000_255),
        ("(call $log (i32.const 0) (i32.const 144) (i32.const 0))", 1_000),
        ("(call $log (i32.const 0) (i32.const 144) (i32.const 3000))", 4_000),
    ] {
        let ask = |times: u64| {
            let body = format!(
                "(local $n i32) (loop $next {wanted} (local.set $n (i32.add (local.get $n) (i32.const 1)))
                 (br_if $next (i32.lt_u (local.get $n) (i32.const {times})))) unreachable"
            );
            let mut plugin = load::<Assignment>(&guests::assignment().extra(table).decide(&body)).unwrap();
            plugin.ask(&questions::assignment(2, 3)).unwrap_err()
        };
        let budget = 5_000_000 + 2 * 3 * 3_000;
        let (few, enough) = (ask(1), ask(budget / fuel + 1));
        assert!(!matches!(few, Fault::OutOfFuel(_)), "{wanted}: {few}");
        assert_eq!(enough, Fault::OutOfFuel(budget), "{wanted}");
    }
}

/// One deadline for the instance's start and its answer.
#[test]
fn the_deadline_is_the_backstop_of_an_assignment() {
    let mut limits = Limits::default();
    limits.set("fuel_base", 100_000_000_000_000).unwrap();
    limits.set("fuel_max", 100_000_000_000_000).unwrap();
    limits.set("answer_ms", 50).unwrap();
    let file = guests::assignment().decide(LOOP).component();
    let mut plugin = Plugin::<Assignment>::load(&Engine::new().unwrap(), "x", &file, &[], limits).unwrap();
    let fault = plugin.ask(&questions::assignment(2, 3)).unwrap_err();
    assert_eq!(fault, Fault::Deadline(Duration::from_millis(50)));
    assert!(plugin.was_fresh());
}

#[test]
fn faults_at_the_start_are_load_errors() {
    let late = load::<Sizing>(&good().configure(LOOP)).unwrap_err();
    assert_eq!(late, LoadError::Start(Fault::Deadline(Duration::from_millis(100))));
    let start = load::<Sizing>(&good().extra("(func $start unreachable) (start $start)")).unwrap_err();
    assert!(matches!(start, LoadError::Start(Fault::Trap { .. })), "{start}");
    let looping =
        load::<Sizing>(&good().extra("(func $start (loop $l (br $l))) (start $start)")).unwrap_err();
    assert!(matches!(looping, LoadError::Start(Fault::Deadline(_))), "{looping}");
    let refused = load::<Sizing>(&good().configure("i32.const 128")).unwrap_err();
    assert_eq!(refused.to_string(), "the policy rejects its configuration: no idea!");
}

#[test]
fn traps_say_what_happened() {
    let fault = fault(&good().decide("(call $log (i32.const 3) (i32.const 144) (i32.const 8)) unreachable"));
    let text = fault.to_string();
    assert!(text.starts_with("the policy crashed: wasm `unreachable` instruction executed"), "{text}");
    assert!(text.ends_with("after it logged: no idea!"), "{text}");
}

#[test]
fn recursion_ends_in_a_fault() {
    let fault = fault(&good().decide("(call $decide (local.get 0))  (drop) (call $decide (local.get 0))"));
    assert!(fault.to_string().contains("call stack exhausted"), "{fault}");
}

#[test]
fn memory_is_limited() {
    let bomb = "(block $full (loop $more
                  (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))";
    let fault = fault(&good().decide(&format!("{bomb} unreachable")));
    assert!(matches!(&fault, Fault::MemoryLimit(_)), "{fault}");
    // Coping with a refusal is fine.
    let coping =
        load::<Sizing>(&good().decide(&format!("{bomb} i32.const 0"))).unwrap().ask(&questions::sizing());
    assert!(coping.is_ok());
}

#[test]
fn oversized_data_is_refused_before_it_is_copied() {
    // An owner list that claims 4 billion entries, and one that the memory really holds.
    for (length, pages) in [(u32::MAX, 1), (3 << 20, 200)] {
        let guest = Guest::new(Kind::Assignment, &ok(&[0, length])).pages(pages);
        let fault = load::<Assignment>(&guest).unwrap().ask(&questions::assignment(1, 1)).unwrap_err();
        assert!(matches!(fault, Fault::AnswerTooLarge(_) | Fault::Trap { .. }), "{fault}");
    }
    // Many lists that all point to the same bytes.
    let body = "(local $i i32) (loop $next
            (i32.store (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 8))) (i32.const 0))
            (i32.store (i32.add (i32.const 1028) (i32.mul (local.get $i) (i32.const 8))) (i32.const 100000))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 4096)))) i32.const 0";
    let guest = Guest::new(Kind::Assignment, &ok(&[1024, 4096])).decide(body).pages(20);
    let fault = load::<Assignment>(&guest).unwrap().ask(&questions::assignment(1, 1)).unwrap_err();
    assert_eq!(fault, Fault::AnswerTooLarge(8 << 20));
    let fault = self::fault(
        &good().decide("(call $log (i32.const 1) (i32.const 0) (i32.const 12000000)) i32.const 0").pages(200),
    );
    assert_eq!(fault, Fault::AnswerTooLarge(8 << 20));
}

#[test]
fn invalid_answers_name_the_field() {
    let fault = fault(&sizing(9, 10, 5));
    let text = fault.to_string();
    assert!(text.contains("datagram is 9; it must be from 1200 to 1472"), "{text}");
    let mut plugin = load::<Assignment>(&Guest::new(Kind::Assignment, &ok(&[0, 0]))).unwrap();
    assert!(matches!(plugin.ask(&questions::assignment(2, 2)), Err(Fault::Invalid(_))));
}

#[test]
fn garbage_results_are_faults() {
    for body in ["i32.const -16", "i32.const 3", "i32.const 144"] {
        let fault = fault(&good().decide(body));
        assert!(matches!(fault, Fault::Trap { .. } | Fault::Invalid(_)), "{body}: {fault}");
    }
}

#[test]
fn a_refusal_is_the_policys_own_sentence() {
    assert_eq!(fault(&good().decide("i32.const 128")), Fault::Refused("no idea!".into()));
}

#[test]
fn log_floods_do_no_harm() {
    let flood = "(local $i i32) (loop $next (call $log (i32.const 0) (i32.const 144) (i32.const 3000))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $i) (i32.const 200)))) i32.const 0";
    assert!(load::<Sizing>(&good().decide(flood)).unwrap().ask(&questions::sizing()).is_ok());
}

/// What is listed can be set under that name, or says that it cannot.
#[test]
fn limits_are_listed_by_the_names_they_are_set_by() {
    fn listed<P: Policy>(guest: &Guest) -> Vec<&'static str> {
        let plugin = load::<P>(guest).unwrap();
        for (name, of) in plugin.usage() {
            let set = limits().set(name, of.limit);
            assert_eq!(set.is_err(), of.fixed, "{name}: {set:?}");
        }
        plugin.usage().into_iter().map(|(name, _)| name).collect()
    }
    let unknown = limits().set("none", 1).unwrap_err().to_string();
    let settable: Vec<_> = unknown.rsplit_once(" are ").unwrap().1.split(", ").collect();
    let assignment = listed::<Assignment>(&guests::assignment());
    assert!(settable.iter().all(|name| assignment.contains(name)), "{assignment:?}");
    assert!(!listed::<Sizing>(&good()).iter().any(|name| name.starts_with("fuel")));

    let mut plugin = load::<Assignment>(&guests::assignment()).unwrap();
    let fuel = plugin.ask(&questions::assignment(3, 4)).unwrap().fuel;
    let usage = plugin.usage();
    let used = |wanted| usage.iter().find(|(name, _)| *name == wanted).unwrap().1.used;
    assert_eq!((used("fuel_base").max(fuel), used("fuel_per_pair")), (used("fuel_max"), Some(0)));
}

/// More at a time than the engine has slots for: who finds none free waits, and it is nobody's fault.
#[test]
fn many_are_asked_at_a_time() {
    let slow = "(loop $more (br_if $more (i32.lt_u
        (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 3000000))))";
    let good = guests::assignment();
    let (locals, rest) = good.decide.split_once('\n').unwrap();
    let body = format!("{locals} (local $n i32) {slow} {rest}");
    let file = good.clone().decide(&body).component();
    let engine = Engine::new().unwrap();
    let compiled = overlan_policy::Compiled::<Assignment>::new(&engine, "test", &file, &Limits::default());
    let compiled = compiled.unwrap();
    std::thread::scope(|threads| {
        for _ in 0..48 {
            threads.spawn(|| {
                let mut plugin = compiled.start(&[], Limits::default()).unwrap();
                for _ in 0..4 {
                    plugin.ask(&questions::assignment(2, 2)).unwrap();
                }
            });
        }
    });
}
