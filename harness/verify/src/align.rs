//! Aligns two sequences: which elements correspond, in order, and which stand alone.
//!
//! The sequences are numbers; whoever has facts gives equal numbers to equal facts. Nothing is
//! sorted: two sequences with the same elements in another order do not align.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// One row of an alignment; indices into the two sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Both(usize, usize),
    Control(usize),
    Restored(usize),
}

/// Gives equal numbers to equal elements of two sequences.
pub(crate) fn intern<T: Eq + Hash>(
    control: impl Iterator<Item = T>,
    restored: impl Iterator<Item = T>,
) -> (Vec<usize>, Vec<usize>) {
    let mut numbers = HashMap::new();
    let mut number = |element| {
        let next = numbers.len();
        *numbers.entry(element).or_insert(next)
    };
    let control = control.map(&mut number).collect();
    (control, restored.map(number).collect())
}

/// Aligns. The shortest edit script (Myers) where the sequences differ in [`LIMIT`] places at most;
/// beyond that a script that is right, but perhaps longer than need be.
pub(crate) fn align(control: &[usize], restored: &[usize]) -> Vec<Row> {
    // An element that the other side does not have at all aligns with nothing. Taking these out
    // first keeps the search short where it would be longest: two queues with little in common.
    let (control_kept, restored_kept) = (shared(control, restored), shared(restored, control));
    let pick = |indices: &[usize], from: &[usize]| -> Vec<usize> {
        indices.iter().map(|index| from[*index]).collect()
    };
    let mut pairs = common(
        &pick(&control_kept, control),
        &pick(&restored_kept, restored),
    );
    for pair in &mut pairs {
        *pair = (control_kept[pair.0], restored_kept[pair.1]);
    }
    rows(&pairs, control.len(), restored.len())
}

/// Edits after which a search settles for the furthest point that it has reached. It bounds the
/// time by `LIMIT` times the length, and the memory by `LIMIT` squared numbers.
const LIMIT: usize = 1024;

/// Rising pairs of equal elements.
fn common(control: &[usize], restored: &[usize]) -> Vec<(usize, usize)> {
    let ends = control.iter().rev().zip(restored.iter().rev());
    let n_suffix = ends.take_while(|(a, b)| a == b).count();
    let (n_control, n_restored) = (control.len() - n_suffix, restored.len() - n_suffix);
    let (control, restored) = (&control[..n_control], &restored[..n_restored]);
    let mut pairs = Vec::new();
    let (mut x, mut y) = (0, 0);
    while x < n_control && y < n_restored {
        let leg = search(&control[x..], &restored[y..]);
        pairs.extend(leg.pairs.into_iter().rev().map(|(a, b)| (x + a, y + b)));
        (x, y) = (x + leg.end.0, y + leg.end.1);
    }
    pairs.extend((0..n_suffix).map(|i| (n_control + i, n_restored + i)));
    pairs
}

/// A stretch of the script: where it ends, and its equal elements from the last to the first.
struct Leg {
    end: (usize, usize),
    pairs: Vec<(usize, usize)>,
}

/// Searches forward, edit by edit, until the end of both or [`LIMIT`].
fn search(control: &[usize], restored: &[usize]) -> Leg {
    const CENTRE: usize = LIMIT + 1;
    // The furthest x reached on each diagonal; y is x + CENTRE - diagonal.
    let mut furthest = vec![0; 2 * LIMIT + 3];
    let mut trace: Vec<Vec<usize>> = Vec::new();
    for n_edits in 0..=LIMIT {
        let mut best = (0, CENTRE);
        for diagonal in (CENTRE - n_edits..=CENTRE + n_edits).step_by(2) {
            let mut x = step(&furthest, diagonal, n_edits, CENTRE);
            let mut y = x + CENTRE - diagonal;
            while x < control.len() && y < restored.len() && control[x] == restored[y] {
                (x, y) = (x + 1, y + 1);
            }
            furthest[diagonal] = x;
            let inside = x <= control.len() && y <= restored.len();
            if inside && x + y >= best.0 {
                best = (x + y, diagonal);
            }
        }
        let low = CENTRE - n_edits;
        trace.push(furthest[low..=CENTRE + n_edits].to_vec());
        if best.0 == control.len() + restored.len() || n_edits == LIMIT {
            return back(&trace, best.1, CENTRE);
        }
    }
    unreachable!("the last round of the loop returns")
}

/// Where the path to `diagonal` starts in round `n_edits`, before its run of equal elements.
fn step(furthest: &[usize], diagonal: usize, n_edits: usize, centre: usize) -> usize {
    if n_edits == 0 {
        return 0;
    }
    let (low, high) = (centre - n_edits, centre + n_edits);
    let down =
        diagonal == low || diagonal != high && furthest[diagonal - 1] < furthest[diagonal + 1];
    if down {
        furthest[diagonal + 1]
    } else {
        furthest[diagonal - 1] + 1
    }
}

/// Follows the path back from its end on `diagonal`.
fn back(trace: &[Vec<usize>], mut diagonal: usize, centre: usize) -> Leg {
    let last = trace.len() - 1;
    let x = trace[last][diagonal + last - centre];
    let end = (x, x + centre - diagonal);
    let mut pairs = Vec::new();
    for n_edits in (0..trace.len()).rev() {
        let end = trace[n_edits][diagonal + n_edits - centre];
        let (start, from) = match n_edits.checked_sub(1) {
            None => (0, diagonal),
            Some(before) => {
                let at = |it: usize| {
                    trace[before]
                        .get((it + before).checked_sub(centre)?)
                        .copied()
                };
                let (above, left) = (at(diagonal + 1), at(diagonal - 1));
                let down = left.is_none() || above.is_some() && left < above;
                if down {
                    (above.expect("one of them is there"), diagonal + 1)
                } else {
                    (left.expect("checked above") + 1, diagonal - 1)
                }
            }
        };
        pairs.extend((start..end).rev().map(|x| (x, x + centre - diagonal)));
        diagonal = from;
    }
    Leg { end, pairs }
}

/// Indices of the elements that `other` has too.
fn shared(sequence: &[usize], other: &[usize]) -> Vec<usize> {
    let there: HashSet<_> = other.iter().collect();
    let kept = |index: &usize| there.contains(&sequence[*index]);
    (0..sequence.len()).filter(kept).collect()
}

/// The rows between rising pairs: first what only control has, then what only restored has.
fn rows(pairs: &[(usize, usize)], n_control: usize, n_restored: usize) -> Vec<Row> {
    let mut rows = Vec::with_capacity(n_control.max(n_restored));
    let (mut control, mut restored) = (0, 0);
    for &(at_control, at_restored) in pairs {
        rows.extend((control..at_control).map(Row::Control));
        rows.extend((restored..at_restored).map(Row::Restored));
        rows.push(Row::Both(at_control, at_restored));
        (control, restored) = (at_control + 1, at_restored + 1);
    }
    rows.extend((control..n_control).map(Row::Control));
    rows.extend((restored..n_restored).map(Row::Restored));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(control: &str, restored: &str, expected: &str) {
        let (a, b) = intern(control.chars(), restored.chars());
        let shown: String = align(&a, &b)
            .into_iter()
            .map(|row| match row {
                Row::Both(i, j) => {
                    assert_eq!(a[i], b[j]);
                    " ".to_owned()
                }
                Row::Control(i) => format!("-{}", &control[i..=i]),
                Row::Restored(j) => format!("+{}", &restored[j..=j]),
            })
            .collect();
        assert_eq!(shown, expected, "{control} {restored}");
    }

    #[test]
    fn sequences_align_in_order() {
        check("", "", "");
        check("abc", "abc", "   ");
        check("abc", "ac", " -b ");
        check("ac", "abc", " +b ");
        check("axc", "ayc", " -x+y ");
        check("abc", "", "-a-b-c");
        check("", "ab", "+a+b");
        check("xyz", "uvw", "-x-y-z+u+v+w");
    }

    #[test]
    fn a_full_queue_aligns_fast_whatever_differs() {
        let n = 16384;
        let ascending: Vec<usize> = (0..n).collect();
        let descending: Vec<usize> = (0..n).rev().collect();
        let blocks: Vec<usize> = (0..n).map(|i| i / (n / 2)).collect();
        let swapped: Vec<usize> = (0..n).map(|i| 1 - i / (n / 2)).collect();
        let mut state = 1_usize;
        let mut random = || -> Vec<usize> {
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) % 4
            };
            (0..n).map(|_| next()).collect()
        };
        let (noise, other_noise) = (random(), random());
        for (control, restored) in [
            (&ascending, &descending),
            (&blocks, &swapped),
            (&noise, &other_noise),
        ] {
            let rows = align(control, restored);
            let both = rows
                .iter()
                .filter(|row| matches!(row, Row::Both(..)))
                .count();
            assert_eq!(rows.len(), 2 * n - both);
            assert!(both > 0);
        }
    }
}
