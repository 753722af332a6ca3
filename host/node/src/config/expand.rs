//! `shard-{0..63}`: one section for many responsibilities.

use overlan_contract::assignment::MAX_RESPONSIBILITIES;

/// Longest pattern, in bytes: longer than any name.
const MAX_PATTERN: usize = 512;

/// The names a pattern stands for: the text itself, or one for each number of its single inclusive range.
///
/// # Errors
/// What is wrong with the pattern.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("it takes {} bytes; at most {MAX_PATTERN} are allowed", pattern.len()));
    }
    let Some(open) = pattern.find('{') else {
        return if pattern.contains('}') { Err(explain(pattern)) } else { Ok(vec![pattern.to_owned()]) };
    };
    let (before, rest) = (&pattern[..open], &pattern[open + 1..]);
    let (range, after) = rest.split_once('}').ok_or_else(|| explain(pattern))?;
    let (first, last) = range.split_once("..").ok_or_else(|| explain(pattern))?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| explain(pattern));
    let (first, last) = (number(first)?, number(last)?);
    if after.contains(['{', '}']) || first > last {
        return Err(explain(pattern));
    }
    if (last - first) as usize >= MAX_RESPONSIBILITIES {
        return Err(format!("`{pattern}` stands for more than {MAX_RESPONSIBILITIES} responsibilities"));
    }
    Ok((first..=last).map(|number| format!("{before}{number}{after}")).collect())
}

fn explain(pattern: &str) -> String {
    format!(
        "`{pattern}` is no pattern: at most one range such as {{0..63}}, its first number not above its last"
    )
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn a_range_is_inclusive() {
        assert_eq!(expand("shard-{0..63}").unwrap().len(), 64);
        assert_eq!(expand("x{7..8}y").unwrap(), ["x7y", "x8y"]);
        assert_eq!(expand("leader").unwrap(), ["leader"]);
    }

    #[test]
    fn nonsense_is_explained() {
        for bad in
            ["{", "}", "{}", "{1}", "{2..1}", "{1..2}{3..4}", "{-1..2}", "{0..99999999}", "{0..4294967295}"]
        {
            assert!(expand(bad).is_err(), "{bad}");
        }
        assert!(expand(&"x".repeat(1_000)).unwrap_err().contains("1000 bytes"));
    }
}
