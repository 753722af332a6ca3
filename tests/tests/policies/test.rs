//! `overlan policy test`.

use std::process::Command;

use overlan_tests::binary::{finish_unread, overlan, run};
use overlan_tests::json::{row, rows};

const SHIPPED: [(&str, &str); 6] = [
    ("assignment", "rendezvous"),
    ("assignment", "balanced"),
    ("sizing", "mtu-fit"),
    ("sizing", "conservative"),
    ("failover", "fast"),
    ("failover", "knet-compat"),
];

#[test]
fn shipped_policies_pass() {
    for (kind, name) in SHIPPED {
        let report = run(["policy", "test", &format!("builtin:{name}"), "--json"]).json();
        assert_eq!((&report["kind"], &report["failed"]), (&kind.into(), &0.into()), "{name}: {report}");
        let fixtures = rows(&report["fixtures"]);
        assert!(fixtures.len() >= 15, "{name}: {} fixtures", fixtures.len());
        assert!(
            fixtures.iter().all(|fixture| fixture["memory_bytes"].as_u64() > Some(0)),
            "{name}: {report}"
        );
        let metered = fixtures.iter().all(|fixture| fixture["fuel"].as_u64() > Some(0));
        assert_eq!(metered, kind == "assignment", "{name}: {report}");
    }
}

#[test]
fn movement_is_measured_and_bounded() {
    let calm = run(["policy", "test", "builtin:rendezvous", "--max-moved", "0", "--json"]).json();
    let dead = row(&calm["fixtures"], "name", "dead-owners");
    assert_eq!(dead["moved_share"], 0.0, "{dead}");

    let ran = run(["policy", "test", "builtin:balanced", "--max-moved", "0"]);
    assert!(ran.stdout.contains("moved_share is"), "the field is named: {}", ran.stdout);
    assert!(ran.fails(1).contains("breaks the contract"), "and the verdict is given");
    let mut unread = Command::new(overlan());
    unread.args(["policy", "test", "builtin:balanced", "--max-moved", "0"]);
    assert!(
        finish_unread(&mut unread).fails(1).contains("breaks the contract"),
        "also where nobody reads on"
    );
}

#[test]
fn own_fixtures_are_asked_and_may_say_what_to_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = folder.path().join("p");
    let project = project.to_str().expect("a plain name");
    run(["policy", "new", "p", "--kind", "sizing", "--lang", "js", "--dir", project]).ok();
    let fixtures = format!("{project}/fixtures");
    let test = |plugin| run(["policy", "test", plugin, "--fixtures", &fixtures, "--json"]);
    let report = test("builtin:mtu-fit").json();
    assert_eq!(row(&report["fixtures"], "name", "example.json")["passed"], true, "{report}");

    let example = std::fs::read_to_string(format!("{fixtures}/example.json")).expect("an example");
    let mut case: serde_json::Value = serde_json::from_str(&example).expect("JSON");
    case["answer"] = serde_json::json!({ "datagram": 1_472, "coalesce": 1_472, "burst": 64 * 1_472 });
    let wanted = format!("{fixtures}/wanted.json");
    std::fs::write(&wanted, case.to_string()).expect("a file");
    let ran = test("builtin:conservative");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON all the same");
    assert_eq!(
        row(&report["fixtures"], "name", "wanted.json")["violations"][0]["field"],
        "answer",
        "{report}"
    );
    ran.fails(1);

    std::fs::write(&wanted, "{ \"question\": { \"locl\": 1 } }").expect("a file");
    let error = test("builtin:mtu-fit").fails(1);
    assert!(error.contains("wanted.json") && error.contains("locl"), "{error}");
    std::fs::remove_dir_all(&fixtures).expect("a folder to remove");
    std::fs::create_dir(&fixtures).expect("a folder");
    assert!(test("builtin:mtu-fit").fails(1).contains(".json"), "an empty folder is told");
}

#[test]
fn what_is_no_policy_is_told() {
    assert!(run(["policy", "test", "builtin:none"]).fails(1).contains("overlan policy list"));
    assert!(run(["policy", "test", "/no/such.wasm"]).fails(1).contains("/no/such.wasm"));
    let error = run(["policy", "test", "builtin:fast", "--config", "x=1"]).fails(1);
    assert!(error.contains("unknown key `x`"), "{error}");
}
