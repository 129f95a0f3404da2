//! Versions of CRIU, and the bounds that `known` headers put on them.

use std::cmp::Ordering;

/// The version in the words of `criu --version`: the first word that is numbers and dots.
pub(super) fn of_words(words: &str) -> Option<&str> {
    words.split_whitespace().find(|word| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

/// Whether a version is within bounds such as `<= 4.1.1` or `> 4.0 < 5`.
#[must_use]
pub(in crate::engine) fn is_within(version: &str, bounds: &str) -> bool {
    let words: Vec<&str> = bounds.split_whitespace().collect();
    words.chunks(2).all(|pair| {
        let [relation, bound] = pair else {
            return false;
        };
        let order = compare(version, bound);
        match *relation {
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            ">=" => order != Ordering::Less,
            "=" => order == Ordering::Equal,
            _ => false,
        }
    })
}

/// Whether a version comes after another.
#[must_use]
pub fn is_newer(version: &str, than: &str) -> bool {
    compare(version, than) == Ordering::Greater
}

/// Part by part as numbers; a missing part is 0.
fn compare(one: &str, other: &str) -> Ordering {
    let parts = |version: &str| -> Vec<u64> {
        let parts = version.split('.');
        parts.map(|part| part.parse().unwrap_or(0)).collect()
    };
    let (mut one, mut other) = (parts(one), parts(other));
    let length = one.len().max(other.len());
    one.resize(length, 0);
    other.resize(length, 0);
    one.cmp(&other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_part_by_part_as_numbers() {
        let within = [
            ("4.1.1", "<= 4.1.1"),
            ("4.1.1", "< 4.2"),
            ("4.10", "> 4.9.9"),
            ("4.2", "= 4.2.0"),
            ("4.1.1", ">= 4.0 < 4.2"),
        ];
        for (version, bounds) in within {
            assert!(is_within(version, bounds), "{version} {bounds}");
        }
        let outside = [
            ("4.2.1", "<= 4.1.1"),
            ("4.2", ">= 4.0 < 4.2"),
            ("4.1", "~ 4.1"),
            ("4.1", "<="),
        ];
        for (version, bounds) in outside {
            assert!(!is_within(version, bounds), "{version} {bounds}");
        }
    }

    #[test]
    fn the_version_is_found_among_the_words() {
        assert_eq!(of_words("Version: 4.1.1\nGitID: v4.1.1"), Some("4.1.1"));
        assert_eq!(of_words("vdso: Unexpected rt vDSO area bounds"), None);
    }
}
