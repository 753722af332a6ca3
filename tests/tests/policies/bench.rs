//! `overlan policy bench`.

use overlan_tests::binary::run;
use overlan_tests::json::{row, rows};

#[test]
fn policies_stand_beside_the_native_fallback_and_the_shipped_ones() {
    let line = ["policy", "bench", "builtin:fast", "builtin:mtu-fit", "builtin:balanced"];
    let options = ["--nodes", "2,10", "--seconds", "10ms", "--json"];
    let report = run(line.into_iter().chain(options)).json();
    let dist = overlan_tests::package().join("../plugins/dist");
    let files =
        std::fs::read_dir(dist).expect("the shipped components").map(|file| file.expect("a file").path());
    let shipped = files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).count();
    assert_eq!(rows(&report["plugins"]).len(), shipped + 3, "and a native one of each kind: {report}");
    for name in ["builtin:rendezvous", "builtin:balanced", "builtin:conservative", "builtin:knet-compat"] {
        let row = row(&report["plugins"], "plugin", name);
        assert!(
            row["compile_ms"].as_f64() > Some(0.0) && row["instantiate_us"].as_f64() > Some(0.0),
            "{row}"
        );
        let sizes: Vec<_> = rows(&row["rates"]).iter().map(|rate| rate["nodes"].as_u64()).collect();
        assert_eq!(sizes, [Some(2), Some(10)]);
        assert!(
            rows(&row["rates"]).iter().all(|rate| rate["decisions_per_second"].as_f64() > Some(0.0)),
            "{row}"
        );
    }
    run(["policy", "bench", "builtin:fast", "--nodes", "1"]).fails(2);
}
