//! Aligned columns for people.

use std::io::Write as _;

/// A line on standard output; an error where nobody reads any more (`println!` would panic).
macro_rules! out {
    ($($arguments:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($arguments)*)))?
    };
}
pub(crate) use out;

/// Rows under a head. Columns are as wide as their widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Table { rows: vec![head.iter().map(|cell| cell.to_uppercase()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        std::io::stdout().lock().write_all(self.to_string().as_bytes())?;
        Ok(())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let width = |column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells =
                widths.iter().enumerate().map(|(column, &width)| format!("{:width$}", cell(row, column)));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Whether whoever read standard output has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Of a command with a verdict: its exit status tells that also where nobody reads what it prints.
pub(crate) fn unread(printed: anyhow::Result<()>) -> anyhow::Result<()> {
    printed.or_else(|error| if is_broken_pipe(&error) { Ok(()) } else { Err(error) })
}

/// Milliseconds for people.
pub(crate) fn ago(ms: u64) -> String {
    let rounded = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    humantime::format_duration(std::time::Duration::from_millis(rounded)).to_string()
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["name", "id"]);
        table.row(["a", "1"]);
        table.row(["longer", "2"]);
        assert_eq!(table.to_string(), "NAME    ID\na       1\nlonger  2\n");
    }
}
