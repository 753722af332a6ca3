//! Guests in a few lines of WebAssembly text, good and hostile.
//!
//! Each is a core module with the interface metadata that `wit-bindgen` would leave in it; the
//! canonical ABI layouts are written by hand. Static results lie at fixed addresses:
//! 0 an `ok` of the kind's answer, 64 an `ok` of `configure`, 128 an error string.
//!
//! [`matrix`] names what a hostile guest may do, for every kind; [`questions`] are small and valid.

pub mod matrix;
pub mod questions;

use overlan_contract::Kind;
use wit_component::StringEncoding;
use wit_parser::Resolve;

const CONTRACT: &str = include_str!("../../../wit/policy.wit");
const PACKED: &str = include_str!("../../../wit/packed.wit");

/// `decide` and `configure` bodies around static data, all replaceable.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kind whose world it claims.
    pub kind: Kind,
    /// Body of `decide`; leaves the address of the result.
    pub decide: String,
    /// Body of `configure`; leaves the address of the result.
    pub configure: String,
    /// Body of `cabi_realloc`, by which the host gets memory for what it hands over; leaves an address.
    pub realloc: String,
    /// More fields of the module: globals, functions, data.
    pub extra: String,
    /// Initial pages of memory.
    pub pages: u32,
}

impl Guest {
    /// A guest whose `decide` returns the static answer at 0.
    pub fn new(kind: Kind, answer: &[u8]) -> Self {
        let data: String = answer.iter().map(|byte| format!("\\{byte:02x}")).collect();
        Self {
            kind,
            decide: "i32.const 0".into(),
            configure: "i32.const 64".into(),
            realloc: REALLOC.into(),
            extra: format!("(data (i32.const 0) \"{data}\")"),
            pages: 1,
        }
    }

    /// With another body of `decide`.
    #[must_use]
    pub fn decide(mut self, body: &str) -> Self {
        self.decide = body.into();
        self
    }

    /// With another body of `configure`.
    #[must_use]
    pub fn configure(mut self, body: &str) -> Self {
        self.configure = body.into();
        self
    }

    /// With another body of `cabi_realloc`.
    #[must_use]
    pub fn realloc(mut self, body: &str) -> Self {
        self.realloc = body.into();
        self
    }

    /// With more fields.
    #[must_use]
    pub fn extra(mut self, fields: &str) -> Self {
        self.extra.push_str(fields);
        self
    }

    /// With so many pages of memory.
    #[must_use]
    pub fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// The core module, without metadata.
    pub fn core(&self) -> Vec<u8> {
        self.core_of("0.1.0")
    }

    fn core_of(&self, version: &str) -> Vec<u8> {
        let Self { kind, decide, configure, realloc, extra, pages } = self;
        let export = format!("overlan:policy/{kind}@{version}");
        // How the canonical ABI passes the question: by pointer, since all exceed 16 values, save
        // for failover (list, seed, list).
        let params = match kind {
            Kind::Assignment => "i32 i32 i32 i32 i32 i32 i64 i32 i32",
            Kind::Sizing => "i32",
            Kind::Failover => "i32 i32 i64 i32 i32",
        };
        let text = format!(
            r#"(module
              (import "overlan:policy/log@{version}" "write" (func $log (param i32 i32 i32)))
              (memory (export "memory") {pages})
              (global $next (mut i32) (i32.const 8192))
              (data (i32.const 128) "\01\00\00\00\90\00\00\00\08\00\00\00")
              (data (i32.const 144) "no idea!")
              {extra}
              (func (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32)
                (result i32) (local $at i32)
                {realloc})
              (func $decide (export "{export}#decide") (param {params}) (result i32) {decide})
              (func (export "{export}#configure") (param i32 i32) (result i32) {configure}))"#
        );
        wat::parse_str(text).expect("the guest's text is WebAssembly")
    }

    /// The core module with metadata, as `wit-bindgen` and a plain compiler would leave it.
    pub fn module(&self) -> Vec<u8> {
        self.module_of("0.1.0")
    }

    /// The same, speaking another version of the contract.
    pub fn module_of(&self, version: &str) -> Vec<u8> {
        let wit = CONTRACT.replace("@0.1.0", &format!("@{version}"));
        self.described(&wit, &format!("{}-policy", self.kind), version)
    }

    /// The same with one more interface exported: `overlan:policy/extra@0.1.0`, whose `hook` gives 7.
    pub fn module_with_more(&self) -> Vec<u8> {
        let wit = format!(
            "{CONTRACT}\ninterface extra {{ hook: func() -> u32; }}\n\
             world more {{ import log; export {}; export extra; }}\n",
            self.kind
        );
        let hook = r#"(func (export "overlan:policy/extra@0.1.0#hook") (result i32) i32.const 7)"#;
        self.clone().extra(hook).described(&wit, "more", "0.1.0")
    }

    /// The same that also takes its question in one piece (address and length), by this body, which leaves the address of
    /// the result.
    pub fn module_packed(&self, decide: &str) -> Vec<u8> {
        let kind = self.kind;
        let decide = format!(
            r#"(func (export "overlan:policy/packed-{kind}@0.1.0#decide") (param i32 i32) (result i32) {decide})"#
        );
        let wit = format!("{CONTRACT}\n{PACKED}");
        self.clone().extra(&decide).described(&wit, &format!("packed-{kind}-policy"), "0.1.0")
    }

    /// The core module with metadata that describes it as of a world.
    fn described(&self, wit: &str, world: &str, version: &str) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("policy.wit", wit).expect("the contract is WIT");
        let world = resolve.select_world(&[package], Some(world)).expect("the world is in it");
        let mut module = self.core_of(version);
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("metadata fits");
        module
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        encode(&self.module())
    }
}

/// A component from a module with metadata.
pub fn encode(module: &[u8]) -> Vec<u8> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .expect("the module is a component")
}

/// Hands out memory once, and grows it.
const REALLOC: &str = "
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $at) (local.get $new)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
      (drop (memory.grow (i32.add (i32.shr_u (local.get $new) (i32.const 16)) (i32.const 1)))))
    (local.get $at)";

/// `ok` of 32-bit little-endian values behind a tag of four bytes.
pub fn ok(values: &[u32]) -> Vec<u8> {
    [0].iter().chain(values).flat_map(|value| value.to_le_bytes()).collect()
}

/// A sizing guest that always answers `datagram`, `coalesce`, `burst`.
pub fn sizing(datagram: u32, coalesce: u32, burst: u32) -> Guest {
    Guest::new(Kind::Sizing, &ok(&[datagram, coalesce, burst]))
}

/// An assignment guest that gives every duty to node 0, for up to 400 duties.
pub fn assignment() -> Guest {
    // ok, owners at 1024: one list (address 512, length 1) for each duty; node 0 stands at 512.
    Guest::new(Kind::Assignment, &ok(&[1024, 0])).decide(
        "(local $i i32)
         (i32.store (i32.const 8) (local.get 3))
         (block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (local.get 3)))
           (i32.store (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 8))) (i32.const 512))
           (i32.store (i32.add (i32.const 1028) (i32.mul (local.get $i) (i32.const 8))) (i32.const 1))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         i32.const 0",
    )
}

/// A failover guest that takes the paths as they come, for up to 64 of them.
pub fn failover() -> Guest {
    // ok, order at 1024, passive, timings at 4096: 100 ms, 50 ms, 3 misses, 1 s.
    Guest::new(Kind::Failover, &ok(&[1024, 0, 0, 0, 0, 4096, 0])).decide(
        "(local $i i32) (local $at i32)
         (i32.store (i32.const 8) (local.get 1))
         (i32.store (i32.const 28) (local.get 1))
         (block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (local.get 1)))
           (i32.store (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 4))) (local.get $i))
           (local.set $at (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 16))))
           (i32.store (local.get $at) (i32.const 100000))
           (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const 50000))
           (i32.store (i32.add (local.get $at) (i32.const 8)) (i32.const 3))
           (i32.store (i32.add (local.get $at) (i32.const 12)) (i32.const 1000))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         i32.const 0",
    )
}

/// A guest of a kind that answers validly.
pub fn good(kind: Kind) -> Guest {
    match kind {
        Kind::Assignment => assignment(),
        Kind::Sizing => sizing(1_472, 1_200, 65_536),
        Kind::Failover => failover(),
    }
}

/// Never ends.
pub const LOOP: &str = "(loop $forever (br $forever)) unreachable";
