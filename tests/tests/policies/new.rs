//! `overlan policy new`.

use overlan_tests::binary::run;

#[test]
fn every_kind_and_language_gives_a_project() {
    let folder = tempfile::tempdir().expect("a folder");
    for kind in ["assignment", "sizing", "failover"] {
        for (lang, source) in [("rust", "src/lib.rs"), ("python", "policy.py"), ("js", "policy.js")] {
            let project = folder.path().join(format!("{kind}-{lang}"));
            let dir = project.to_str().expect("a plain name");
            let said = run(["policy", "new", "mine", "--kind", kind, "--lang", lang, "--dir", dir]).ok();
            assert!(said.contains("overlan policy build"), "{said}");
            for file in [source, "README.md", "fixtures/example.json", ".gitignore"] {
                assert!(project.join(file).is_file(), "{kind} in {lang}: {file}");
            }
        }
    }
}

#[test]
fn nothing_is_overwritten_and_bad_names_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_str().expect("a plain name");
    std::fs::write(folder.path().join("mine"), "").expect("a file");
    let error = run(["policy", "new", "p", "--kind", "sizing", "--dir", dir]).fails(2);
    assert!(error.contains("is there already"), "{error}");
    let error = run(["policy", "new", "../p", "--kind", "sizing"]).fails(2);
    assert!(error.contains("lower-case"), "{error}");
    run(["policy", "new", "p", "--kind", "speed"]).fails(2);
}

#[test]
fn a_folder_without_a_project_cannot_be_built() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = run(["policy", "build", folder.path().to_str().expect("a plain name")]).fails(1);
    assert!(error.contains("overlan policy new"), "{error}");
}
