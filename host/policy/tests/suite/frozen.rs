//! What was released stays: the contract's text, and plugins that were built against it.

use std::path::Path;

use crate::guests::{encode, good, questions, sizing};
use overlan_contract::Kind;
use overlan_policy::{
    Assignment, CONTRACT_TRACK, CONTRACT_VERSION, Engine, Failover, Limits, LoadError, Plugin, Policy,
    Sizing, inspect,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

#[derive(Deserialize)]
struct Releases {
    release: Vec<Release>,
}

#[derive(Deserialize)]
struct Release {
    version: String,
    file: String,
    sha256: String,
}

/// Tests run in their package's folder.
fn repository() -> &'static Path {
    Path::new("../..")
}

#[test]
fn released_contracts_are_frozen() {
    let wit = repository().join("wit");
    let text = std::fs::read_to_string(wit.join("released.toml")).unwrap();
    let releases: Releases = toml::from_str(&text).unwrap();
    assert!(releases.release.iter().any(|release| release.version == CONTRACT_VERSION));
    for Release { version, file, sha256 } in releases.release {
        let bytes = std::fs::read(wit.join(&file)).unwrap();
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            found, sha256,
            "{file} was released as {version} and must stay as it is; give the change a version of its own"
        );
        let package = format!("package overlan:policy@{version};");
        assert!(String::from_utf8(bytes).unwrap().contains(&package), "{file} is {version}");
    }
}

/// Loads a plugin built against an earlier release of this track, and asks it.
fn old<P: Policy>(version: &str, name: &str, question: &P::Question) -> P::Answer {
    let path = repository().join(format!("tests/corpus/plugins/{version}/{name}.wasm"));
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(inspect(&file).version.as_deref(), Some(version));
    let engine = Engine::new().unwrap();
    let mut plugin = Plugin::<P>::load(&engine, name, &file, &[], Limits::default())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    plugin.ask(question).unwrap_or_else(|fault| panic!("{}: {fault}", path.display())).answer
}

#[test]
fn plugins_of_earlier_releases_still_answer() {
    let plan = old::<Assignment>("0.1.0", "rendezvous", &questions::assignment(3, 4));
    assert_eq!(plan.owners, [[2], [0], [2], [0]]);
    let sizes = old::<Sizing>("0.1.0", "conservative", &questions::sizing());
    assert_eq!((sizes.datagram, sizes.coalesce), (1_200, 1_200));
    let paths = old::<Failover>("0.1.0", "fast", &questions::failover(2));
    assert_eq!(paths.order, [0, 1]);
    assert_eq!((paths.timings[0].probe_interval_us, paths.timings[0].misses), (200_000, 3));
}

#[test]
fn every_release_of_the_track_has_a_corpus_of_all_kinds() {
    let text = std::fs::read_to_string(repository().join("wit/released.toml")).unwrap();
    let releases: Releases = toml::from_str(&text).unwrap();
    for release in releases.release.iter().filter(|release| release.version.starts_with(CONTRACT_TRACK)) {
        let folder = repository().join("tests/corpus/plugins").join(&release.version);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let kinds: std::collections::BTreeSet<Kind> = files
            .map(|file| {
                let path = file.unwrap().path();
                inspect(&std::fs::read(&path).unwrap()).kind.unwrap_or_else(|| panic!("{}", path.display()))
            })
            .collect();
        assert_eq!(kinds.len(), Kind::ALL.len(), "{}", folder.display());
    }
}

#[test]
fn one_more_interface_is_found_and_not_required() {
    let engine = Engine::new().unwrap();
    for module in [false, true] {
        let file = |module_bytes: Vec<u8>| if module { module_bytes } else { encode(&module_bytes) };
        let newer = file(good(Kind::Sizing).module_with_more());
        let mut plugin = Plugin::<Sizing>::load(&engine, "newer", &newer, &[], Limits::default()).unwrap();
        assert_eq!(plugin.ask(&questions::sizing()).unwrap().answer.datagram, 1_472);
        // A core module is described by the host's own contract, so it has what this host knows.
        if !module {
            assert_eq!(plugin.report().optional("extra"), Some("overlan:policy/extra@0.1.0"));
        }
        assert_eq!(plugin.report().optional("other"), None);
        let older = file(sizing(1_472, 1_200, 65_536).module());
        let plugin = Plugin::<Sizing>::load(&engine, "older", &older, &[], Limits::default()).unwrap();
        assert_eq!(plugin.report().optional("extra"), None);
    }
}

/// A question in one piece is laid out as `wit/packed.wit` says, which plugins that are built already go by.
#[test]
fn packed_questions_are_frozen() {
    let adapter = |last: u8| {
        let named: &[u8] = b"\x04eth0\x05ether";
        // IPv4 address, prefix length, MTU and speed as varints, no class, DSCP 0, up, no attributes.
        [named, &[0, 10, 1, 0, last, 24, 0xdc, 0x0b, 0xe8, 0x07, 0, 0, 0, 0]].concat()
    };
    let sizing = [&adapter(1)[..], &adapter(2), &[1, 0xdc, 0x0b, 0, 0, 28, 1], b"\x04site\x01x"].concat();
    assert_eq!(postcard::to_allocvec(&questions::sizing()).unwrap(), sizing);

    let path = [&adapter(100)[..], &adapter(0), &[0, 0, 1, 0, 0, 0]].concat();
    let failover = [&[1], &path[..], &[1, 0]].concat();
    assert_eq!(postcard::to_allocvec(&questions::failover(1)).unwrap(), failover);

    let mut question = questions::assignment(1, 1);
    question.previous = vec![vec![0, 300]];
    question.seed = u64::MAX;
    question.nodes[0].adapters.truncate(1);
    question.nodes[0].adapters[0].address = std::net::Ipv6Addr::LOCALHOST.into();
    let mut loopback = adapter(0);
    loopback.splice(11..16, [1].into_iter().chain([0; 15]).chain([1]));
    let node = [&[32][..], &[b'0'; 32], b"\x02n0", &[1, 1], &loopback, &[0]].concat();
    let duty = [&b"\x07shard-0"[..], &[1, 0xe8, 0x07, 0]].concat();
    let seed = [[0xff; 9].as_slice(), &[1]].concat();
    let assignment = [&[1], &node[..], &[1], &duty, &[1, 2, 0, 0xac, 0x02], &seed, &[0]].concat();
    assert_eq!(postcard::to_allocvec(&question).unwrap(), assignment);
}

#[test]
fn a_mismatch_of_versions_tells_what_to_do() {
    let engine = Engine::new().unwrap();
    for (version, cure) in [
        ("0.2.0", "update this node to a release that speaks it, or rebuild it"),
        ("9.0.0", "update this node to a release that speaks it, or rebuild it"),
        ("0.0.9", "(any 0.1.x); rebuild it with the plugin SDK"),
    ] {
        for kind in Kind::ALL {
            for file in [good(kind).module_of(version), encode(&good(kind).module_of(version))] {
                let error = Plugin::<Sizing>::load(&engine, "v", &file, &[], Limits::default()).unwrap_err();
                assert_eq!(error, LoadError::Version { found: version.into() });
                let said = error.to_string();
                assert!(said.contains(version) && said.contains(cure), "{said}");
            }
        }
    }
}
