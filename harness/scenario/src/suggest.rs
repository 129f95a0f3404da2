//! "Did you mean": the known word that is nearest to one that is not known.

/// The candidate nearest to `word`, if any is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = word.len().div_ceil(3).min(4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= limit)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the
/// other; case does not count.
fn distance(left: &str, right: &str) -> usize {
    let left = left.to_ascii_lowercase().into_bytes();
    let right = right.to_ascii_lowercase().into_bytes();
    let mut before_last = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i; right.len() + 1];
        for j in 1..=right.len() {
            let replaced = usize::from(left[i - 1] != right[j - 1]);
            row[j] = (last[j] + 1)
                .min(row[j - 1] + 1)
                .min(last[j - 1] + replaced);
            let swapped =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if swapped {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_found() {
        let words = ["IN_MODIFY", "IN_MOVED_TO", "IN_MOVE_SELF", "open", "close"];
        let check = |word, expected| assert_eq!(nearest(word, words), expected, "{word}");
        check("IN_MODFY", Some("IN_MODIFY"));
        check("in_modify", Some("IN_MODIFY"));
        check("IN_MOEVD_TO", Some("IN_MOVED_TO"));
        check("opne", Some("open"));
        check("read", None);
        check("x", None);
        check("", None);
    }
}
