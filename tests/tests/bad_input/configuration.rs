//! Configuration that is wrong: the file, the line, what is allowed.

use std::path::Path;

use overlan_tests::binary::run;
use overlan_tests::cluster::Cluster;

/// Starts a node with this file, which must fail; gives what it says.
fn refused(folder: &Path, text: &str) -> String {
    let file = folder.join("bad.toml");
    std::fs::write(&file, text).expect("a file");
    run([Path::new("node").as_os_str(), "--config".as_ref(), file.as_os_str()]).fails(2)
}

#[test]
fn a_wrong_key_or_value_names_file_line_and_what_is_allowed() {
    let cluster = Cluster::on_loopback();
    let good = cluster.config(0).text();
    // (what is put into the file, what the error must say beside file and line)
    let cases = [
        ("[node]\n", "[node]\ncolour = \"red\"\n", &["colour"][..]),
        ("port = 7400", "port = 70000", &["70000", "65535"]),
        ("port = 7400", "port = \"many\"", &["port"]),
        ("[cluster]\n", "[cluster]\nquorum = \"some\"\n", &["some", "none", "majority"]),
        ("seeds = []", "seeds = [\"not an address\"]", &["not an address"]),
        ("name = \"a\"", "name = \"\"", &["name"]),
        ("[[adapter]]\n", "[[adapter]]\ndscp = 64\n", &["64", "63"]),
        ("[node]\n", "[node\n", &[]),
    ];
    for (from, to, said) in cases {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "the case {to:?} changes nothing");
        let line = bad[..bad.find(to).expect("it is there")].lines().count();
        let error = refused(cluster.folder(), &bad);
        assert!(error.contains("bad.toml"), "it names the file ({to:?}): {error}");
        let near = (line..=line + 2).any(|line| {
            error.contains(&format!("bad.toml:{line}")) || error.contains(&format!("line {line}"))
        });
        assert!(near, "it names the line, {line} or the next ({to:?}): {error}");
        for word in said {
            assert!(error.contains(word), "it says {word:?} ({to:?}): {error}");
        }
    }
}

#[test]
fn an_unknown_policy_kind_or_plugin_names_those_there_are() {
    let cluster = Cluster::on_loopback();
    let good = cluster.config(0).text();
    let kind = refused(cluster.folder(), &format!("{good}\n[policy.weather]\nplugin = \"builtin:fast\"\n"));
    assert!(kind.contains("weather"), "{kind}");
    let plugin =
        refused(cluster.folder(), &format!("{good}\n[policy.failover]\nplugin = \"builtin:slow\"\n"));
    assert!(plugin.contains("slow") && plugin.contains("fast") && plugin.contains("knet-compat"), "{plugin}");
}

#[test]
fn a_missing_file_is_named() {
    let error = run(["node", "--config", "/no/such/overlan.toml"]).fails(2);
    assert!(error.contains("/no/such/overlan.toml"), "{error}");
}

#[test]
fn a_missing_key_file_says_how_to_make_one() {
    let cluster = Cluster::on_loopback();
    let mut config = cluster.config(0);
    config.key_file = cluster.folder().join("no-such.key");
    let error = refused(cluster.folder(), &config.text());
    assert!(error.contains("no-such.key") && error.contains("overlan keygen"), "{error}");
}

#[test]
fn a_key_file_that_is_none_is_refused() {
    let cluster = Cluster::on_loopback();
    let mut config = cluster.config(0);
    config.key_file = cluster.folder().join("nonsense.key");
    for nonsense in [&b""[..], b"hello\n", &[0xff; 4_000]] {
        std::fs::write(&config.key_file, nonsense).expect("a file");
        let error = refused(cluster.folder(), &config.text());
        assert!(error.contains("[cluster] key_file: ") && error.contains("nonsense.key"), "{error}");
    }
}

#[test]
fn a_plugin_that_cannot_be_used_is_named() {
    let cluster = Cluster::on_loopback();
    let good = cluster.config(0).text();
    let nonsense = cluster.folder().join("nonsense.wasm");
    std::fs::write(&nonsense, "hello").expect("a file");
    for (plugin, said) in [
        ("\"no-such.wasm\"", &["no-such.wasm", "overlan policy build", "builtin:NAME"][..]),
        ("\"nonsense.wasm\"", &["nonsense.wasm", "not a WebAssembly component"]),
        ("\"builtin:fast\"\nconfig = { colour = \"red\" }", &["colour", "allowed keys"]),
    ] {
        let error = refused(cluster.folder(), &format!("{good}\n[policy.failover]\nplugin = {plugin}\n"));
        assert!(error.contains("[policy.failover]: "), "{error}");
        for word in said {
            assert!(error.contains(word), "it says {word:?}: {error}");
        }
    }
}
