//! Which guest did what: a table, printed and written beside what the tests build.

use std::fmt::Write as _;

use overlan_contract::Kind;

/// Rows of the report.
#[derive(Default)]
pub(crate) struct Report(Vec<(String, Kind, String)>);

impl Report {
    /// What a guest did, and what became of it.
    pub(crate) fn row(&mut self, guest: &str, kind: Kind, outcome: impl Into<String>) {
        self.0.push((guest.into(), kind, outcome.into()));
    }

    /// Prints it, and writes it to `NAME.txt`.
    pub(crate) fn publish(&self, name: &str) {
        let width = self.0.iter().map(|(guest, ..)| guest.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (guest, kind, outcome) in &self.0 {
            writeln!(text, "{guest:width$}  {:10}  {outcome}", kind.name())
                .expect("a string takes everything");
        }
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("txt");
        std::fs::write(&path, &text).expect("the report can be written");
        println!("{text}{}", path.display());
    }
}
