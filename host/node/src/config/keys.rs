//! What each key takes, for errors about a value of another type.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

const TEXT: &str = "text in quotes";
const TABLE: &str = "a table";

/// The key whose value stands at `span`, what stands there, and what is allowed.
pub(super) fn explain(text: &str, span: &Range<usize>) -> Option<String> {
    let (table, _) = DeTable::parse_recoverable(text);
    let (key, found) = find(table.get_ref(), "", span)?;
    Some(format!("{key} is {found}; it must be {}", allowed(&key)))
}

/// A date or time anywhere: no key takes one, but the deserializer hands it to tables as a text.
pub(super) fn date(text: &str) -> Option<Range<usize>> {
    fn in_value(value: &toml::Spanned<DeValue<'_>>) -> Option<Range<usize>> {
        match value.get_ref() {
            DeValue::Datetime(_) => Some(value.span()),
            DeValue::Table(table) => table.values().find_map(in_value),
            DeValue::Array(array) => array.iter().find_map(in_value),
            _ => None,
        }
    }
    let (table, _) = DeTable::parse_recoverable(text);
    table.get_ref().values().find_map(in_value)
}

/// The innermost value that holds the span.
fn find(table: &DeTable<'_>, above: &str, span: &Range<usize>) -> Option<(String, &'static str)> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        let key = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
        within(&key, value, span)
    })
}

fn within(
    key: &str,
    value: &toml::Spanned<DeValue<'_>>,
    span: &Range<usize>,
) -> Option<(String, &'static str)> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => find(table, key, span),
        DeValue::Array(array) => array.iter().find_map(|item| within(key, item, span)),
        _ => None,
    };
    let holds = || value.span().start <= span.start && span.end <= value.span().end;
    inner.or_else(|| holds().then(|| (key.to_owned(), kind(value.get_ref()))))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(number) if number.as_str().parse::<i64>().is_err() => "too large",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => TABLE,
    }
}

fn allowed(key: &str) -> &'static str {
    match key {
        "node" | "cluster" => TABLE,
        "node.name" => "a name in quotes: letters, digits, `-`, `_` or `.`",
        "node.state_dir" | "node.control" | "cluster.key_file" => "a path in quotes",
        "node.port" => "a whole number from 1 to 65535",
        "node.metrics" => "an ADDRESS:PORT in quotes, such as \"127.0.0.1:9464\"",
        "node.busy_poll" => "true, false or \"adaptive\"",
        "node.congestion" => "\"cubic\" or \"bbr\"",
        "node.attributes" => "a table of texts, such as { site = \"x\" }",
        "cluster.name" => "a name in quotes: letters, digits, `-`, `_` or `.`",
        "cluster.seeds" => "a list of ADDRESS:PORT in quotes, such as [\"10.2.0.2:7400\"]",
        "cluster.quorum" => "\"none\" or \"majority\"",
        "cluster.security" => "\"key\" or \"none\"",
        "cluster.allow" => "a list of node ids in quotes, as `overlan members --json` shows them",
        "cluster.operator_key" => {
            "64 hexadecimal digits in quotes, as `overlan keygen --operator` tells them"
        }
        "adapter" => "a list of tables, each headed [[adapter]]",
        "adapter.name" | "route.adapter" => "an interface's name in quotes",
        "adapter.address" | "adapter.gateway" | "route.via" => {
            "an IP address in quotes, such as \"10.1.0.2\""
        }
        "adapter.dscp" => "a whole number from 0 to 63",
        "adapter.speed" => "a whole number of Mbit/s from 0 to 4294967295",
        "route" => "a list of tables, each headed [[route]]",
        "route.subnet" => "a network in quotes, such as \"10.9.0.0/16\"",
        "policy.journal" => "a whole number of MiB from 0 (none is kept) to 65536",
        "policy" => "the tables [policy.assignment], [policy.sizing] and [policy.failover]",
        "policy.assignment" | "policy.sizing" | "policy.failover" => {
            "a table with plugin = \"builtin:NAME\" or the path of a component"
        }
        "policy.assignment.plugin" | "policy.sizing.plugin" | "policy.failover.plugin" => {
            "\"builtin:NAME\" or the path of a component in quotes"
        }
        "policy.assignment.config" | "policy.sizing.config" | "policy.failover.config" => {
            "a table of texts, such as { key = \"value\" }"
        }
        "policy.assignment.limits" | "policy.sizing.limits" | "policy.failover.limits" => {
            "a table of whole numbers, such as { memory_bytes = 67108864 }"
        }
        "policy.assignment.probation" | "policy.sizing.probation" | "policy.failover.probation" => {
            "a table of whole numbers, such as { answers = 3, seconds = 60, faults = 1 }"
        }
        "policy.assignment.breaker" | "policy.sizing.breaker" | "policy.failover.breaker" => {
            "a table of whole numbers, such as { faults = 3, seconds = 1, max_seconds = 300 }"
        }
        _ if key.starts_with("policy.")
            && [".limits.", ".probation.", ".breaker."].iter().any(|of| key.contains(of)) =>
        {
            "a whole number"
        }
        "responsibility" => "a list of tables, each headed [[responsibility]]",
        "responsibility.name" => "a name or pattern in quotes, such as \"shard-{0..63}\"",
        "responsibility.replicas" => "a whole number from 1 to 32",
        "responsibility.weight" => "a number from 0 to 1000000",
        "responsibility.requires" => "a table of texts, such as { site = \"x\" }",
        _ => TEXT,
    }
}
