//! Reading the command line's `--json` output.

use serde_json::Value;

/// The rows of a listing: the array itself, or the only array in the object.
///
/// # Panics
/// Where there is no such array.
pub fn rows(listing: &Value) -> &[Value] {
    if let Value::Array(rows) = listing {
        return rows;
    }
    let arrays = listing.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_array());
    match arrays.collect::<Vec<_>>()[..] {
        [rows] => rows,
        _ => panic!("not a listing: {listing}"),
    }
}

/// Text of a field, empty where it has none.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Number of a field.
///
/// # Panics
/// Where it is none.
pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field:?} in {value}"))
}

/// The row whose `field` is `wanted`.
///
/// # Panics
/// Where there is none.
pub fn row<'a>(listing: &'a Value, field: &str, wanted: &str) -> &'a Value {
    rows(listing)
        .iter()
        .find(|row| text(row, field) == wanted)
        .unwrap_or_else(|| panic!("no row with {field} = {wanted:?} in {listing:#}"))
}
