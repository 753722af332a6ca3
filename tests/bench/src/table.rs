//! Medians, ratios, and how they are shown.

use std::path::Path;

use serde_json::{Value, json};

use crate::case::{Case, Metric};

/// A figure of a system, once per run.
struct Row {
    metric: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self) -> f64 {
        let values = self.sorted();
        let middle = values.len() / 2;
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
    }
}

/// What all runs of a system gave.
#[derive(Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    /// One more run.
    pub(crate) fn add(&mut self, metrics: Vec<Metric>) {
        for Metric { name, unit, value } in metrics {
            match self.0.iter_mut().find(|row| row.metric == name) {
                Some(row) => row.values.push(value),
                None => self.0.push(Row { metric: name, unit, values: vec![value] }),
            }
        }
    }

    fn find(&self, metric: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.metric == metric)
    }
}

/// A measured case.
pub(crate) struct Measured {
    pub(crate) case: Case,
    /// By system, in the case's order.
    pub(crate) rows: Vec<Rows>,
}

impl Measured {
    /// The table of a case: the metric that counts with its range, its ratio to the reference, then the rest.
    pub(crate) fn print(&self) {
        let Case { name, title, network, metric, reference, systems } = &self.case;
        println!("\n{name}: {title} ({network})");
        let systems = || systems.iter().zip(&self.rows);
        let base =
            systems().find(|(system, _)| system.name == *reference).and_then(|(_, rows)| rows.find(metric));
        let base = base.map(Row::median);
        for (system, rows) in systems() {
            let Some(main) = rows.find(metric) else {
                println!("  {:<40} not measured", system.name);
                continue;
            };
            let sorted = main.sorted();
            let range = format!("{} .. {}", short(sorted[0]), short(sorted[sorted.len() - 1]));
            let ratio = base.map_or(String::new(), |base| format!("{:.2}x", main.median() / base));
            let others = rows.0.iter().filter(|row| row.metric != *metric && row.median() != 0.0);
            let others: Vec<String> =
                others.map(|row| format!("{} {} {}", row.metric, short(row.median()), row.unit)).collect();
            println!(
                "  {:<40} {:>9} {:<6} {:>20} {:>8}  {}",
                system.name,
                short(main.median()),
                main.unit,
                range,
                ratio,
                others.join(", ")
            );
        }
    }

    fn json(&self) -> impl Iterator<Item = Value> {
        let systems = self.case.systems.iter().zip(&self.rows);
        systems.flat_map(|(system, rows)| {
            rows.0.iter().map(|row| {
                let sorted = row.sorted();
                json!({
                    "case": self.case.name, "system": system.name, "metric": row.metric, "unit": row.unit,
                    "min": sorted[0], "median": row.median(), "max": sorted[sorted.len() - 1],
                    "runs": sorted.len(),
                })
            })
        })
    }
}

/// All rows as a JSON array, one a line.
pub(crate) fn write_json(path: &Path, measured: &[Measured]) -> std::io::Result<()> {
    let rows: Vec<String> = measured.iter().flat_map(Measured::json).map(|row| format!("  {row}")).collect();
    std::fs::write(path, format!("[\n{}\n]\n", rows.join(",\n")))
}

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
