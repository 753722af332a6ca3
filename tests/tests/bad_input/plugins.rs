//! Files that are no plugins: what they have, what is needed, and the old policy stays.

use overlan_tests::binary::run;
use overlan_tests::cluster::Cluster;
use overlan_tests::json::row;

/// A core module with one empty function: WebAssembly, but no component.
const MODULE: &[u8] = &[
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x04, 0x01, 0x60, 0x00, 0x00, 0x03, 0x02, 0x01,
    0x00, 0x0a, 0x04, 0x01, 0x02, 0x00, 0x0b,
];
/// An empty component: valid, but of no world of ours.
const EMPTY_COMPONENT: &[u8] = &[0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];

#[test]
fn what_is_no_plugin_is_refused_and_the_old_one_stays() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let node = &cluster.nodes[0];
    let before = node.run(&["policy", "list", "--json"]).json();
    let cut = &EMPTY_COMPONENT[..5];
    for (name, bytes, said) in [
        ("empty", &b""[..], "component"),
        ("text", b"fn main() {}", "component"),
        ("cut", cut, "damaged"),
        ("module", MODULE, "component"),
        ("component", EMPTY_COMPONENT, "overlan:policy"),
    ] {
        let file = cluster.folder().join(format!("{name}.wasm"));
        std::fs::write(&file, bytes).expect("a file");
        let file = file.to_str().expect("a plain name");
        for kind in ["assignment", "sizing", "failover"] {
            let error = node.run(&["policy", "set", kind, file]).fails(1);
            assert!(error.contains(said), "{name} as {kind}: {error}");
        }
        let error = run(["policy", "check", file]).fails(1);
        assert!(error.contains(said), "{name} checked: {error}");
        if !bytes.is_empty() {
            let checked = run(["policy", "check", file, "--json"]);
            let report: serde_json::Value = serde_json::from_str(&checked.stdout).expect("a report");
            assert_eq!((checked.status, &report["verdict"]), (Some(1), &"refused".into()), "{name}");
            assert!(report["why"].as_str().is_some_and(|why| why.contains(said)), "{name}: {report}");
        }
    }
    assert_eq!(node.run(&["policy", "list", "--json"]).json(), before, "nothing was swapped");
}

#[test]
fn a_plugin_of_another_kind_is_refused() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let error = cluster.nodes[0].run(&["policy", "set", "sizing", "builtin:fast"]).fails(1);
    assert!(error.contains("failover") || error.contains("mtu-fit"), "what it is, or what there is: {error}");
    let error = cluster.nodes[0].run(&["policy", "set", "sizing", "/no/such/plugin.wasm"]).fails(1);
    assert!(error.contains("/no/such/plugin.wasm"), "{error}");
}

/// Every key of `--config` reaches the plugin, and nothing that is given twice is passed over.
#[test]
fn a_configuration_may_have_any_key_once() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let file = cluster.folder().join("fast.wasm");
    let fast = overlan_node::plugins::find("fast").expect("it is shipped");
    std::fs::write(&file, fast.wasm).expect("a file");
    let file = file.to_str().expect("a plain name");
    let refused = |options: &[&str]| {
        let set: Vec<&str> =
            ["policy", "set", "failover", file].into_iter().chain(options.iter().copied()).collect();
        cluster.nodes[0].run(&set).fails(1)
    };
    for key in ["name", "limit.x", "config.x"] {
        let error = refused(&["--config", &format!("{key}=1")]);
        assert!(error.contains(&format!("unknown key `{key}`")), "{error}");
    }
    for option in ["--config", "--limit"] {
        let error = refused(&[option, "start_ms=1", option, "start_ms=2"]);
        assert!(error.contains(&format!("{option} start_ms is given twice")), "{error}");
    }
    let error = refused(&["--config", &format!("x={}", "y".repeat(100_000))]);
    assert!(error.contains("shorten it"), "{error}");
}

#[test]
fn the_list_shows_what_answers_each_kind() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let listed = cluster.nodes[0].run(&["policy", "list", "--json"]).json();
    for (kind, default) in [("assignment", "rendezvous"), ("sizing", "mtu-fit"), ("failover", "fast")] {
        let shown = row(&listed["active"], "kind", kind).to_string();
        assert!(shown.contains(default), "{shown}");
    }
}
