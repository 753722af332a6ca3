//! Files that are not the policy wanted: a clear verdict each, never a panic.

use crate::guests::{self, Guest, encode, sizing};
use overlan_contract::Kind;
use overlan_policy::{Assignment, Engine, Form, Limits, LoadError, Plugin, Sizing, check, inspect};

fn good() -> Guest {
    sizing(1_472, 1_200, 65_536)
}

fn load(file: &[u8]) -> Result<Plugin<Sizing>, LoadError> {
    Plugin::load(&Engine::new().unwrap(), "test", file, &[], Limits::default())
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn a_good_file_is_described() {
    let file = good().component();
    let report = inspect(&file);
    assert_eq!((report.form, report.kind, report.problem), (Form::Component, Some(Kind::Sizing), None));
    assert_eq!((report.version.as_deref(), report.size_bytes), (Some("0.1.0"), file.len()));
    assert_eq!(report.sha256.len(), 64);
    assert!(check(&Engine::new().unwrap(), &file, &[], Limits::default()).is_ok());
    let plugin = load(&file).unwrap();
    assert_eq!((plugin.kind(), plugin.name(), plugin.sha256()), (Kind::Sizing, "test", &*report.sha256));
}

#[test]
fn what_is_not_webassembly_is_told() {
    for (file, says) in [
        (&b""[..], "empty"),
        (b"\x7fELF\x02\x01\x01", "native code"),
        (b"(module)", "WebAssembly text"),
        (b"def decide(q): pass", "is text"),
        (b"PK\x03\x04", "zip"),
        (b"\0asm\x07\0\0\0", "damaged"),
        (b"\0asm", "damaged"),
        (b"\xff\xfe\x00", "unknown format"),
    ] {
        let error = load(file).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(inspect(file).problem.is_some());
    }
    let small = Limits { file_bytes: 10, ..Limits::default() };
    let error =
        Plugin::<Sizing>::load(&Engine::new().unwrap(), "big", &good().component(), &[], small).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { limit: 10, .. }));
}

#[test]
fn a_component_that_was_precompiled_is_never_run() {
    let engine = wasmtime::Engine::default();
    let native = engine.precompile_component(&good().component()).unwrap();
    assert_eq!(load(&native).unwrap_err(), LoadError::Precompiled);
}

#[test]
fn a_core_module_without_metadata_is_told() {
    assert_eq!(load(&good().core()).unwrap_err(), LoadError::CoreModule);
    let wasi = wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#).unwrap();
    assert!(load(&wasi).unwrap_err().to_string().contains("build without WASI"));
}

#[test]
fn a_core_module_that_does_not_fit_is_told() {
    // A parameter too many for the contract.
    let mut odd = wat::parse_str(
        r#"(module (memory (export "memory") 1)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
          (func (export "overlan:policy/sizing@0.1.0#decide") (param i32 i32) (result i32) unreachable)
          (func (export "overlan:policy/sizing@0.1.0#configure") (param i32 i32) (result i32) unreachable))"#,
    )
    .unwrap();
    odd.extend_from_slice(&good().module()[good().core().len()..]);
    let error = load(&odd).unwrap_err();
    assert!(matches!(error, LoadError::Componentize(_)), "{error}");
    let error = load(&good().module_of("0.2.0")).unwrap_err();
    assert_eq!(error, LoadError::Version { found: "0.2.0".into() });
    load(&good().module_of("0.1.7")).expect("the same track fits");
}

#[test]
fn metadata_is_never_decoded() {
    // wit-parser 0.254 overflows the stack on a cycle of packages, which one flipped bit can make.
    let mut module = good().core();
    module.extend_from_slice(b"\0\x10\x0ecomponent-type\xff");
    load(&module).expect("the host describes the module by its own contract");
}

#[test]
fn another_kind_is_told() {
    let error = load(&guests::assignment().component()).unwrap_err();
    assert_eq!(error, LoadError::WrongKind { found: Kind::Assignment, needed: Kind::Sizing });
    assert!(
        error.to_string().contains("this is a assignment policy") || error.to_string().contains("assignment")
    );
    let engine = Engine::new().unwrap();
    assert!(
        Plugin::<Assignment>::load(&engine, "a", &guests::assignment().component(), &[], Limits::default())
            .is_ok()
    );
}

/// In the same words for every kind, though one of them starts its instances in slots of a fixed size.
#[test]
fn what_is_too_much_from_the_start_is_told() {
    let engine = Engine::new().unwrap();
    let tables = |count: usize| "(table 1 funcref)".repeat(count);
    for (fields, says) in [
        ("(table 100001 funcref)".to_owned(), "100001 elements, its limit table_elements is 100000"),
        ("(table 20000000 funcref)".to_owned(), "20000000 elements, its limit table_elements is 100000"),
        (
            "(table 60000 funcref)".repeat(2),
            "of 60000 elements was refused, the limit table_elements is 100000",
        ),
        (tables(33), "33 tables, all together may have 32"),
        (tables(99), "99 tables, all together may have 32"),
        ("(memory 1)".repeat(8), "9 memories, all together may have 8"),
        ("(memory 60000)".to_owned(), "3932160000 bytes, its limit memory_bytes is 268435456"),
        ("(memory i64 70000)".to_owned(), "4587520000 bytes, its limit memory_bytes is 268435456"),
    ] {
        for kind in Kind::ALL {
            let file = guests::good(kind).extra(&fields).component();
            let error = check(&engine, &file, &[], Limits::default()).unwrap_err().to_string();
            assert!(error.contains(says), "{kind}: {error}");
        }
    }
    for (fields, kind) in
        Kind::ALL.iter().flat_map(|kind| [(tables(20), kind), ("(memory 1)".repeat(3), kind)])
    {
        let file = guests::good(*kind).extra(&fields).component();
        assert!(check(&engine, &file, &[], Limits::default()).is_ok(), "{kind}: {fields}");
    }
}

#[test]
fn another_version_is_told() {
    let error = load(&encode(&good().module_of("0.2.0"))).unwrap_err();
    assert_eq!(error, LoadError::Version { found: "0.2.0".into() });
    assert!(error.to_string().contains("this host speaks 0.1.0"));
    load(&encode(&good().module_of("0.1.7"))).expect("the same track fits");
}

#[test]
fn foreign_imports_are_named() {
    let file = component(
        r#"(component
          (import "wasi:clocks/wall-clock@0.2.0" (instance))
          (instance $i)
          (export "overlan:policy/sizing@0.1.0" (instance $i)))"#,
    );
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("wasi:clocks/wall-clock@0.2.0") && error.contains("--stub-wasi"), "{error}");
}

#[test]
fn foreign_components_are_told() {
    let error = load(&component(r#"(component (instance $i) (export "a:b/c" (instance $i)))"#)).unwrap_err();
    assert!(error.to_string().contains("exports a:b/c, no policy"), "{error}");
    assert!(matches!(load(&component("(component)")).unwrap_err(), LoadError::NotAPolicy { .. }));
    let several = r#"(component (instance $i)
        (export "overlan:policy/sizing@0.1.0" (instance $i)) (export "overlan:policy/failover@0.1.0" (instance $i)))"#;
    assert!(matches!(load(&component(several)).unwrap_err(), LoadError::SeveralKinds { .. }));
    let empty = r#"(component (instance $i) (export "overlan:policy/sizing@0.1.0" (instance $i)))"#;
    let error = load(&component(empty)).unwrap_err();
    assert!(matches!(error, LoadError::Contract(_)), "{error}");
}

#[test]
fn damaged_files_never_panic() {
    let engine = Engine::new().unwrap();
    let limits = Limits { start_deadline: std::time::Duration::from_millis(20), ..Limits::default() };
    for file in [good().component(), good().module()] {
        for end in (0..file.len()).step_by(7) {
            let outcome = Plugin::<Sizing>::load(&engine, "cut", &file[..end], &[], limits.clone());
            // Cutting a module between sections may leave a valid, smaller module.
            assert!(outcome.is_err(), "cut at {end} of {}", file.len());
        }
        // A fixed stride over all bits; a flip in a name or a constant may well be harmless.
        for bit in (0..file.len() * 8).step_by(29) {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = Plugin::<Sizing>::load(&engine, "flip", &flipped, &[], limits.clone()) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}
