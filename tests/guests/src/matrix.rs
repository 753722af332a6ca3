//! What a hostile guest may do, for every kind of policy, and what the host must make of it.

use overlan_contract::Kind;

use crate::{Guest, LOOP, encode, good, ok};

/// One hostile guest.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it does, in a few words.
    pub name: &'static str,
    /// Its file, as a policy of a kind.
    pub file: fn(Kind) -> Vec<u8>,
    /// What the host makes of it.
    pub expect: Expect,
}

/// What the host must make of a guest.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// It is not loaded; the sentence contains this.
    Refused(&'static str),
    /// It is loaded, and every question ends in one of these faults (by the names of the counters).
    Faults(&'static [&'static str]),
    /// It answers validly all the same.
    Harmless,
}

use Expect::{Faults, Harmless, Refused};

/// Asks for memory until it is refused.
const MEMORY_BOMB: &str = "(block $full (loop $more
    (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))";
/// Asks for table elements until they are refused.
const TABLE_BOMB: &str = "(block $full (loop $more
    (br_if $full (i32.eq (table.grow $t (ref.null func) (i32.const 50000)) (i32.const -1))) (br $more)))";
/// Bytes enough that no honest answer has them: 12 MiB.
const MUCH: u32 = 12 << 20;
/// Pages of memory that really hold them.
const MUCH_PAGES: u32 = 200;

/// Every hostile guest.
pub const MATRIX: &[Case] = &[
    // --- When it starts ---
    Case { name: "loops while it is instantiated", file: loop_in_start, expect: Refused("interrupted") },
    Case { name: "loops while it is configured", file: loop_in_configure, expect: Refused("interrupted") },
    Case {
        name: "recurses while it is instantiated",
        file: recursion_in_start,
        expect: Refused("call stack"),
    },
    Case { name: "traps while it is instantiated", file: trap_in_start, expect: Refused("unreachable") },
    Case { name: "traps while it is configured", file: trap_in_configure, expect: Refused("unreachable") },
    Case { name: "refuses its configuration", file: refuses_configuration, expect: Refused("no idea!") },
    Case { name: "wants a large memory from the start", file: large_memory, expect: Refused("memory_bytes") },
    Case { name: "wants a large table from the start", file: large_table, expect: Refused("table_elements") },
    Case { name: "wants a vast table from the start", file: vast_table, expect: Refused("table_elements") },
    // --- When it is asked ---
    Case { name: "loops", file: loop_in_call, expect: Faults(&["deadline", "out_of_fuel"]) },
    Case { name: "recurses without end", file: recursion, expect: Faults(&["trap"]) },
    Case { name: "traps", file: trap, expect: Faults(&["trap"]) },
    Case { name: "divides by zero", file: division, expect: Faults(&["trap"]) },
    Case { name: "takes all memory, then traps", file: memory_bomb, expect: Faults(&["memory_limit"]) },
    Case { name: "takes all memory and copes", file: memory_glutton, expect: Harmless },
    Case { name: "grows a table, then traps", file: table_bomb, expect: Faults(&["memory_limit"]) },
    Case { name: "refuses every question", file: refuses, expect: Faults(&["refused"]) },
    Case { name: "floods the log", file: log_flood, expect: Harmless },
    Case { name: "logs 12 MiB in a line", file: log_giant, expect: Faults(&["answer_too_large"]) },
    Case { name: "fails to place what the host hands over", file: wild_realloc, expect: Faults(&["trap"]) },
    Case {
        name: "loops while the host hands over",
        file: loop_in_realloc,
        expect: Faults(&["deadline", "out_of_fuel"]),
    },
    // --- What it answers ---
    Case { name: "answers from outside its memory", file: wild_answer, expect: Faults(&["trap"]) },
    Case { name: "answers with an unknown variant", file: wild_variant, expect: Faults(&["trap"]) },
    Case {
        name: "claims a list of 4 billion",
        file: huge_claim,
        expect: Faults(&["answer_too_large", "trap", "invalid"]),
    },
    Case { name: "gives a list of 12 MiB", file: long_list, expect: Faults(&["answer_too_large"]) },
    Case { name: "gives a string of 12 MiB", file: long_string, expect: Faults(&["answer_too_large"]) },
    Case { name: "gives many lists of the same bytes", file: aliases, expect: Faults(&["answer_too_large"]) },
    Case { name: "gives a string that is not UTF-8", file: bad_utf8, expect: Faults(&["trap"]) },
    Case { name: "gives the largest numbers", file: largest, expect: Faults(&["invalid"]) },
    Case { name: "gives the bits of NaN", file: nan, expect: Faults(&["invalid"]) },
    Case { name: "gives the bits of infinity", file: infinity, expect: Faults(&["invalid"]) },
    Case { name: "names one twice", file: duplicates, expect: Faults(&["invalid"]) },
    Case { name: "names one that is unknown", file: unknown, expect: Faults(&["invalid"]) },
    Case { name: "answers with nothing", file: empty, expect: Faults(&["invalid"]) },
    // --- What its file is ---
    Case { name: "is of another kind", file: other_kind, expect: Refused("use it as") },
    Case { name: "imports WASI", file: wasi_component, expect: Refused("without WASI") },
    Case { name: "imports WASI as a core module", file: wasi_module, expect: Refused("without WASI") },
    Case { name: "is a core module with no component type", file: bare, expect: Refused("plugin SDK") },
    Case { name: "answers two kinds", file: two_kinds, expect: Refused("one kind") },
    Case { name: "exports no policy", file: no_policy, expect: Refused("no policy") },
    Case { name: "promises what it has not", file: hollow, expect: Refused("does not fit the contract") },
    Case { name: "speaks contract 0.2.0", file: next_version, expect: Refused("speaks version 0.2.0") },
    Case { name: "speaks contract 9.0.0", file: far_version, expect: Refused("speaks version 9.0.0") },
    Case { name: "wants threads", file: threads, expect: Refused("damaged or uses WebAssembly features") },
    Case { name: "is precompiled (.cwasm)", file: precompiled, expect: Refused("native code") },
    Case { name: "is cut off", file: cut, expect: Refused("damaged") },
    Case { name: "is empty", file: |_| Vec::new(), expect: Refused("empty") },
    Case { name: "is text", file: |_| b"def decide(q): pass".to_vec(), expect: Refused("text") },
    Case { name: "is larger than 64 MiB", file: oversized, expect: Refused("more than") },
];

fn with(kind: Kind, change: impl FnOnce(Guest) -> Guest) -> Vec<u8> {
    change(good(kind)).component()
}

fn loop_in_start(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.extra("(func $start (loop $l (br $l))) (start $start)"))
}

fn loop_in_configure(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.configure(LOOP))
}

fn recursion_in_start(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.extra("(func $start (call $start) (call $start)) (start $start)"))
}

fn trap_in_start(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.extra("(func $start unreachable) (start $start)"))
}

fn trap_in_configure(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.configure("unreachable"))
}

fn refuses_configuration(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.configure("i32.const 128"))
}

fn large_memory(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.pages(60_000))
}

fn large_table(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.extra("(table 10000000 funcref)"))
}

/// More than any limit allows.
fn vast_table(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.extra("(table 4000000000 funcref)"))
}

fn loop_in_call(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide(LOOP))
}

fn recursion(kind: Kind) -> Vec<u8> {
    with(kind, |guest| {
        guest.decide("(call $deep (i32.const 0))").extra(
            "(func $deep (param i32) (result i32)
               (i32.add (call $deep (local.get 0)) (call $deep (i32.add (local.get 0) (i32.const 1)))))",
        )
    })
}

fn trap(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide("unreachable"))
}

fn division(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide("(i32.div_u (i32.const 1) (i32.const 0))"))
}

fn memory_bomb(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide(&format!("{MEMORY_BOMB} unreachable")))
}

fn memory_glutton(kind: Kind) -> Vec<u8> {
    with(kind, |guest| {
        let decide = guest.decide.clone();
        let locals = if kind == Kind::Sizing { "" } else { decide_locals(kind) };
        let rest = decide.strip_prefix(locals).unwrap_or(&decide).to_owned();
        guest.decide(&format!("{locals} {MEMORY_BOMB} {rest}"))
    })
}

/// Locals stand before all instructions.
fn decide_locals(kind: Kind) -> &'static str {
    match kind {
        Kind::Assignment => "(local $i i32)",
        Kind::Sizing => "",
        Kind::Failover => "(local $i i32) (local $at i32)",
    }
}

fn table_bomb(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.extra("(table $t 1 funcref)").decide(&format!("{TABLE_BOMB} unreachable")))
}

fn refuses(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide("i32.const 128"))
}

fn log_flood(kind: Kind) -> Vec<u8> {
    with(kind, |guest| {
        let flood = "(func $flood (local $n i32) (loop $next
              (call $log (i32.const 0) (i32.const 144) (i32.const 3000))
              (local.set $n (i32.add (local.get $n) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $n) (i32.const 200)))))";
        let locals = decide_locals(kind);
        let rest = guest.decide.strip_prefix(locals).unwrap_or(&guest.decide).to_owned();
        guest.extra(flood).decide(&format!("{locals} (call $flood) {rest}"))
    })
}

fn log_giant(kind: Kind) -> Vec<u8> {
    let line = format!("(call $log (i32.const 1) (i32.const 1024) (i32.const {MUCH})) unreachable");
    with(kind, |guest| guest.decide(&line).pages(MUCH_PAGES))
}

/// It places its configuration, so that it starts, and nothing after that.
const TWICE: &str = "(global $placed (mut i32) (i32.const 0))";

fn wild_realloc(kind: Kind) -> Vec<u8> {
    with(kind, |guest| after_configuration(guest, "(return (i32.const -16))"))
}

fn loop_in_realloc(kind: Kind) -> Vec<u8> {
    with(kind, |guest| after_configuration(guest, "(loop $forever (br $forever))"))
}

fn after_configuration(guest: Guest, then: &str) -> Guest {
    let realloc = guest.realloc.clone();
    guest
        .extra(TWICE)
        .configure("(global.set $placed (i32.const 1)) i32.const 64")
        .realloc(&format!("(if (global.get $placed) (then {then})) {realloc}"))
}

fn wild_answer(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide("i32.const -16"))
}

fn wild_variant(kind: Kind) -> Vec<u8> {
    with(kind, |guest| guest.decide("i32.const 144"))
}

/// A guest that answers with these values behind the `ok`.
fn answers(kind: Kind, values: &[u32]) -> Guest {
    Guest::new(kind, &ok(values))
}

fn huge_claim(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Assignment => answers(kind, &[0, u32::MAX]).component(),
        Kind::Failover => answers(kind, &[0, u32::MAX, 0, 0, 0, 0, 0]).component(),
        // It has no lists; a sentence instead.
        Kind::Sizing => error_of(kind, u32::MAX, 1),
    }
}

fn long_list(kind: Kind) -> Vec<u8> {
    let length = MUCH / 4;
    match kind {
        Kind::Assignment => answers(kind, &[0, length]).pages(2 * MUCH_PAGES).component(),
        Kind::Failover => answers(kind, &[0, length, 0, 0, 0, 0, 0]).pages(MUCH_PAGES).component(),
        Kind::Sizing => error_of(kind, MUCH, MUCH_PAGES),
    }
}

fn long_string(kind: Kind) -> Vec<u8> {
    error_of(kind, MUCH, MUCH_PAGES)
}

/// A refusal whose sentence claims to be so long.
fn error_of(kind: Kind, length: u32, pages: u32) -> Vec<u8> {
    let decide = format!(
        "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const 1024))
         (i32.store (i32.const 8) (i32.const {length})) i32.const 0"
    );
    with(kind, |guest| guest.decide(&decide).pages(pages))
}

fn aliases(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Assignment => {
            let body = "(local $i i32) (loop $next
                (i32.store (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 8))) (i32.const 0))
                (i32.store (i32.add (i32.const 1028) (i32.mul (local.get $i) (i32.const 8))) (i32.const 100000))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $i) (i32.const 4096)))) i32.const 0";
            answers(kind, &[1024, 4096]).decide(body).pages(20).component()
        }
        // Order, weights and timings of the same 4 MiB.
        Kind::Failover => answers(kind, &[0, 1 << 20, 2, 0, 1 << 20, 0, 1 << 18]).pages(80).component(),
        Kind::Sizing => error_of(kind, MUCH, MUCH_PAGES),
    }
}

fn bad_utf8(kind: Kind) -> Vec<u8> {
    let decide = "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const 1024))
        (i32.store (i32.const 8) (i32.const 4)) (i32.store (i32.const 1024) (i32.const -1)) i32.const 0";
    with(kind, |guest| guest.decide(decide))
}

/// One owner or path list of one entry, and the same number in every other place.
fn everywhere(kind: Kind, value: u32) -> Vec<u8> {
    let data = |at: u32, words: usize| {
        let bytes: String = std::iter::repeat_n(value, words)
            .flat_map(u32::to_le_bytes)
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!("(data (i32.const {at}) \"{bytes}\")")
    };
    match kind {
        Kind::Assignment => {
            // Lists at 512 for three duties, each of the one number at 256.
            let lists: String = [256_u32, 1]
                .repeat(3)
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .map(|byte| format!("\\{byte:02x}"))
                .collect();
            let lists = format!("(data (i32.const 512) \"{lists}\")");
            answers(kind, &[512, 3]).extra(&data(256, 1)).extra(&lists).component()
        }
        Kind::Sizing => answers(kind, &[value, value, value]).component(),
        Kind::Failover => {
            answers(kind, &[256, 2, 0, 0, 0, 512, 2]).extra(&data(256, 2)).extra(&data(512, 8)).component()
        }
    }
}

fn largest(kind: Kind) -> Vec<u8> {
    everywhere(kind, u32::MAX)
}

fn nan(kind: Kind) -> Vec<u8> {
    everywhere(kind, f32::NAN.to_bits())
}

fn infinity(kind: Kind) -> Vec<u8> {
    everywhere(kind, f32::INFINITY.to_bits())
}

fn unknown(kind: Kind) -> Vec<u8> {
    everywhere(kind, 1_000_000)
}

fn duplicates(kind: Kind) -> Vec<u8> {
    match kind {
        // One owner wanted, the same one given twice.
        Kind::Assignment => {
            let lists: String = [256_u32, 2]
                .repeat(3)
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .map(|byte| format!("\\{byte:02x}"))
                .collect();
            answers(kind, &[512, 3]).extra(&format!("(data (i32.const 512) \"{lists}\")")).component()
        }
        // Nothing to name in sizes: a burst below the datagram contradicts it instead.
        Kind::Sizing => answers(kind, &[1_472, 1_200, 100]).component(),
        Kind::Failover => with(kind, |guest| {
            let decide = guest.decide.replacen(
                "(local.get $i))\n           (local.set $at",
                "(i32.const 0))\n           (local.set $at",
                1,
            );
            guest.decide(&decide)
        }),
    }
}

fn empty(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Assignment => answers(kind, &[0, 0]).component(),
        Kind::Sizing => answers(kind, &[0, 0, 0]).component(),
        Kind::Failover => answers(kind, &[0; 7]).component(),
    }
}

fn other_kind(kind: Kind) -> Vec<u8> {
    let other = if kind == Kind::Sizing { Kind::Failover } else { Kind::Sizing };
    good(other).component()
}

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the component's text is WebAssembly")
}

fn wasi_component(kind: Kind) -> Vec<u8> {
    text(&format!(
        r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)) (instance $i)
             (export "overlan:policy/{kind}@0.1.0" (instance $i)))"#
    ))
}

fn wasi_module(_: Kind) -> Vec<u8> {
    text(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#)
}

fn bare(kind: Kind) -> Vec<u8> {
    good(kind).core()
}

fn two_kinds(_: Kind) -> Vec<u8> {
    text(
        r#"(component (instance $i) (export "overlan:policy/sizing@0.1.0" (instance $i))
             (export "overlan:policy/failover@0.1.0" (instance $i)))"#,
    )
}

fn no_policy(_: Kind) -> Vec<u8> {
    text(r#"(component (instance $i) (export "a:b/c" (instance $i)))"#)
}

fn hollow(kind: Kind) -> Vec<u8> {
    text(&format!(r#"(component (instance $i) (export "overlan:policy/{kind}@0.1.0" (instance $i)))"#))
}

fn next_version(kind: Kind) -> Vec<u8> {
    encode(&good(kind).module_of("0.2.0"))
}

fn far_version(kind: Kind) -> Vec<u8> {
    encode(&good(kind).module_of("9.0.0"))
}

fn threads(kind: Kind) -> Vec<u8> {
    good(kind).extra("(memory 1 1 shared)").module()
}

/// A component compiled ahead of time is an ELF file; nothing in it may be looked at any further.
fn precompiled(kind: Kind) -> Vec<u8> {
    [b"\x7fELF\x02\x01\x01", &*good(kind).component()].concat()
}

fn cut(kind: Kind) -> Vec<u8> {
    let mut file = good(kind).component();
    file.truncate(file.len() / 2);
    file
}

fn oversized(kind: Kind) -> Vec<u8> {
    let mut file = good(kind).component();
    file.resize((64 << 20) + 1, 0);
    file
}
