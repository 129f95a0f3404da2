//! Numbers in sentences.

use std::fmt::Display;

/// A number with its noun, which is given in the singular: `1 watch`, `2 watches`.
#[must_use]
pub fn counted(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    if number == "1" {
        return format!("1 {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) => format!("{number} {stem}ies"),
        None if noun.ends_with("ch") || noun.ends_with('s') => format!("{number} {noun}es"),
        None => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_singular() {
        for (noun, one, none, many) in [
            ("byte", "1 byte", "0 bytes", "11 bytes"),
            ("watch", "1 watch", "0 watches", "11 watches"),
            ("class", "1 class", "0 classes", "11 classes"),
            (
                "directory",
                "1 directory",
                "0 directories",
                "11 directories",
            ),
        ] {
            let told = [1_u64, 0, 11].map(|number| counted(number, noun));
            assert_eq!(told, [one, none, many]);
        }
    }
}
