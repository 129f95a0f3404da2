//! Lines with a sign before and a remark after them; long stretches made short.

use std::fmt::Write as _;

use fsnotify::counted;

/// What stands before a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// In both runs, or no difference that counts.
    Same,
    /// As control has it.
    Minus,
    /// As restored has it.
    Plus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) sign: Sign,
    /// Levels of blocks around it.
    pub(super) depth: usize,
    pub(super) text: String,
    /// What kind of difference it is, and which invariant it breaks.
    pub(super) remark: String,
}

/// Where remarks begin.
const REMARK_COLUMN: usize = 56;
/// The longest group of lines whose repetition is looked for: a program's loop makes a few events a
/// round, an alternation two.
const LONGEST_PERIOD: usize = 6;
/// A stretch that is the same in both runs is shown up to this length.
const LONGEST_SAME: usize = 24;
/// Lines that remain at each end of a longer one.
const SAME_KEPT: usize = 6;

impl Line {
    pub(super) fn same(depth: usize, text: impl Into<String>) -> Self {
        Self {
            sign: Sign::Same,
            depth,
            text: text.into(),
            remark: String::new(),
        }
    }

    fn print(&self, out: &mut String) {
        let sign = match self.sign {
            Sign::Same => ' ',
            Sign::Minus => '-',
            Sign::Plus => '+',
        };
        let indent = 2 * self.depth;
        let line = match (self.sign, self.depth) {
            (Sign::Same, _) => format!("{:indent$}{}", "", self.text),
            // The sign takes the place of the first level.
            (_, 0 | 1) => format!("{sign} {}", self.text),
            (_, _) => format!("{sign} {:width$}{}", "", self.text, width = indent - 2),
        };
        let written = if self.remark.is_empty() {
            writeln!(out, "{}", line.trim_end())
        } else {
            let width = REMARK_COLUMN.max(line.chars().count() + 2);
            writeln!(out, "{line:width$}{}", self.remark)
        };
        written.expect("a String takes everything");
    }
}

/// Prints lines, with repetitions and long equal stretches made short.
pub(super) fn print(lines: &[Line], out: &mut String) {
    for line in shorten(&fold(lines)) {
        line.print(out);
    }
}

/// Groups of lines that come again and again, once, and how often.
fn fold(lines: &[Line]) -> Vec<Line> {
    let mut folded = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let rounds = |period: usize| {
            let group = &lines[at..(at + period).min(lines.len())];
            let next = lines[at..].chunks_exact(period);
            next.take_while(|chunk| *chunk == group).count()
        };
        let found = (1..=LONGEST_PERIOD)
            .map(|period| (period, rounds(period)))
            .find(|&(period, n)| {
                // Worth a line of its own.
                n > 2 && (n - 1) * period > 3
            });
        let Some((period, n)) = found else {
            folded.push(lines[at].clone());
            at += 1;
            continue;
        };
        folded.extend_from_slice(&lines[at..at + period]);
        let above = match period {
            1 => "the line above".to_owned(),
            n => format!("the {n} lines above"),
        };
        let first = &lines[at];
        folded.push(Line {
            text: format!("({above}, {} more)", counted(n - 1, "time")),
            remark: String::new(),
            ..first.clone()
        });
        at += period * n;
    }
    folded
}

/// Long stretches that are the same in both runs, by their ends.
fn shorten(lines: &[Line]) -> Vec<Line> {
    let is_same = |line: &Line| line.sign == Sign::Same && line.remark.is_empty();
    let mut shortened = Vec::new();
    let same_kind = |a: &Line, b: &Line| is_same(a) == is_same(b) && a.depth == b.depth;
    for stretch in lines.chunk_by(same_kind) {
        if !is_same(&stretch[0]) || stretch[0].depth == 0 || stretch.len() <= LONGEST_SAME {
            shortened.extend_from_slice(stretch);
            continue;
        }
        let n_hidden = stretch.len() - 2 * SAME_KEPT;
        shortened.extend_from_slice(&stretch[..SAME_KEPT]);
        let text = format!("({n_hidden} lines more, the same in both)");
        shortened.push(Line::same(stretch[0].depth, text));
        shortened.extend_from_slice(&stretch[stretch.len() - SAME_KEPT..]);
    }
    shortened
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: &[&str]) {
        let lines: Vec<Line> = lines
            .iter()
            .map(|line| {
                let sign = match line.as_bytes()[0] {
                    b'-' => Sign::Minus,
                    b'+' => Sign::Plus,
                    _ => Sign::Same,
                };
                Line {
                    sign,
                    ..Line::same(1, line[1..].trim())
                }
            })
            .collect();
        let mut out = String::new();
        print(&lines, &mut out);
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn repetitions_are_folded() {
        let alternation: Vec<&str> = [" a", " b"].into_iter().cycle().take(16382).collect();
        check(
            &alternation,
            &["  a", "  b", "  (the 2 lines above, 8190 times more)"],
        );
        check(&["-a"; 6], &["- a", "- (the line above, 5 times more)"]);
        check(&[" a", " a", " b"], &["  a", "  a", "  b"]);
        let mixed = [["-a"; 5], [" a"; 5]].concat();
        check(
            &mixed,
            &[
                "- a",
                "- (the line above, 4 times more)",
                "  a",
                "  (the line above, 4 times more)",
            ],
        );
    }

    #[test]
    fn long_equal_stretches_are_shown_by_their_ends() {
        let lines: Vec<String> = (0..30).map(|n| format!(" {n}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut expected: Vec<String> = (0..6).map(|n| format!("  {n}")).collect();
        expected.push("  (18 lines more, the same in both)".to_owned());
        expected.extend((24..30).map(|n| format!("  {n}")));
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&lines, &expected);
    }

    #[test]
    fn remarks_stand_in_a_column() {
        let mut out = String::new();
        let remark = || "lost       I6.2".to_owned();
        let line = Line {
            sign: Sign::Minus,
            remark: remark(),
            ..Line::same(1, "wd=3 IN_OPEN")
        };
        print(&[line], &mut out);
        assert_eq!(out.find("lost"), Some(REMARK_COLUMN));
        out.clear();
        let line = Line {
            sign: Sign::Plus,
            remark: remark(),
            ..Line::same(2, "x".repeat(60))
        };
        print(&[line], &mut out);
        assert_eq!(out, format!("+   {}  lost       I6.2\n", "x".repeat(60)));
    }
}
