//! Bytes of earlier versions are read as they were meant, and written the same.

use overlan_tests::corpus::Kind;

#[test]
fn old_bytes_mean_what_they_meant() {
    for kind in Kind::ALL {
        let files = kind.files();
        assert!(files.len() >= 3, "{kind:?} has a corpus");
        for (path, bytes) in files {
            let meaning = kind.meaning(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let meant = std::fs::read_to_string(path.with_extension("txt")).expect("its meaning");
            assert_eq!(meaning, meant, "{}", path.display());
        }
    }
}

#[test]
fn old_bytes_are_written_the_same() {
    for kind in Kind::ALL {
        for (path, bytes) in kind.files() {
            // What this version does not know it cannot write, except records, which are relayed as they are.
            if path.file_stem().is_some_and(|name| name == "unknown-frame") {
                continue;
            }
            assert_eq!(kind.rewritten(&bytes).expect("it was read before"), bytes, "{}", path.display());
        }
    }
}
