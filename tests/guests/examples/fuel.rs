//! How long the fuel of an `assignment` question lasts: `cargo run --release -p overlan-guests --example fuel`.
//!
//! Each line is an endless loop of one instruction and the time in which it used up its fuel, which should be well
//! before the deadline of a node whatever the instruction is.

use std::time::{Duration, Instant};

use overlan_guests::assignment;
use overlan_plugin_sdk::testkit::cluster;
use overlan_policy::{Assignment, Engine, Fault, Limits, Plugin};

/// Name, what is in the loop.
const LOOPS: [(&str, &str); 16] = [
    ("branch", ""),
    ("i64 add", "(local.set $a (i64.add (local.get $a) (local.get $b)))"),
    ("i64 mul", "(local.set $a (i64.mul (local.get $a) (local.get $b)))"),
    (
        "i64 div",
        "(local.set $a (i64.div_u (i64.sub (i64.const -1) (local.get $a)) (i64.or (local.get $a) (local.get $b))))",
    ),
    (
        "i64 rem",
        "(local.set $a (i64.rem_s (i64.sub (i64.const -9) (local.get $a)) (i64.or (local.get $a) (local.get $b))))",
    ),
    ("f64 div", "(local.set $x (f64.div (local.get $y) (local.get $x)))"),
    ("f64 sqrt", "(local.set $x (f64.sqrt (f64.add (local.get $x) (local.get $y))))"),
    ("f64 ceil", "(local.set $x (f64.ceil (f64.add (local.get $x) (local.get $y))))"),
    ("f64x2 div", "(local.set $v (f64x2.div (v128.const f64x2 3 7) (local.get $v)))"),
    ("f64x2 sqrt", "(local.set $v (f64x2.sqrt (f64x2.add (local.get $v) (v128.const f64x2 3 7))))"),
    ("f64 to i64", "(local.set $a (i64.trunc_sat_f64_u (f64.convert_i64_u (local.get $a))))"),
    ("call", "(call $f)"),
    ("call indirect", "(call_indirect (i32.const 0))"),
    ("load, 32 KiB", NEAR),
    ("load, 1 MiB", MIDDLE),
    ("load, 128 MiB", FAR),
];

/// Loads that depend on each other, all over so much memory.
const NEAR: &str =
    "(local.set $i (i32.add (i32.load (i32.and (i32.const 0x7ffc) (i32.shr_u (local.get $i) (i32.const 4))))
    (i32.add (i32.const 1013904223) (i32.mul (local.get $i) (i32.const 1664525)))))";
const MIDDLE: &str =
    "(local.set $i (i32.add (i32.load (i32.and (i32.const 0xffffc) (i32.shr_u (local.get $i) (i32.const 4))))
    (i32.add (i32.const 1013904223) (i32.mul (local.get $i) (i32.const 1664525)))))";
const FAR: &str = "(local.set $i (i32.add (i32.load (i32.and (i32.const 0x7fffffc) (i32.shr_u (local.get $i) (i32.const 4))))
    (i32.add (i32.const 1013904223) (i32.mul (local.get $i) (i32.const 1664525)))))";

fn main() {
    let engine = Engine::new().expect("the engine runs here");
    let limits = Limits { assignment_deadline: Duration::from_secs(600), ..Limits::default() };
    let question = cluster(3, 4);
    for (name, body) in LOOPS {
        let guest = assignment()
            // Memory that was never written is one page of zeros to the kernel.
            .pages(2_049)
            .extra("(func $fill (memory.fill (i32.const 65536) (i32.const 1) (i32.const 0x8000000))) (start $fill)")
            .extra("(func $f) (table 1 funcref) (elem (i32.const 0) $f)")
            .decide(&format!(
                "(local $i i32) (local $a i64) (local $b i64) (local $x f64) (local $y f64) (local $v v128)
                 (local.set $b (i64.const 7)) (local.set $y (f64.const 1.7)) (local.set $x (f64.const 3))
                 (loop $forever {body} (br $forever)) unreachable"
            ));
        let mut plugin = Plugin::<Assignment>::load(&engine, name, &guest.component(), &[], limits.clone())
            .expect("it loads");
        let begun = Instant::now();
        let fault = plugin.ask(&question).expect_err("it never ends");
        let took = begun.elapsed();
        let Fault::OutOfFuel(fuel) = fault else { panic!("{name}: {fault}") };
        println!(
            "{name:16} {:>8.2} s {:>8.3} units a ns",
            took.as_secs_f64(),
            fuel as f64 / took.as_nanos() as f64
        );
    }
}
