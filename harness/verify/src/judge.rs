//! Differences to a verdict.
//!
//! A difference is excused by a declaration, never by being small: by the scenario's `known`
//! header, or by a loss that the engine declared at dump. What differs without either fails.

use std::fmt;

use scenario::{Known, Loss};
use serde::{Deserialize, Serialize};
use similar::TextDiff;

use crate::{Difference, invariant};

/// What a run of a scenario under an engine came to. Every verdict but `Pass` has a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// Equal.
    Pass,
    /// Differs as its snapshot records, and a declaration says why.
    Known(String),
    /// A declared difference is gone: delete the declaration.
    Fixed(String),
    /// Differs. Later lines of the reason, if any, are a diff of the snapshot.
    Fail(String),
    /// Engine, kernel or machine lacks something.
    Skip(String),
    /// We could not tell. Says nothing about the engine.
    Broken(String),
}

impl Verdict {
    /// One word, lower case.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Known(_) => "known",
            Self::Fixed(_) => "fixed",
            Self::Fail(_) => "fail",
            Self::Skip(_) => "skip",
            Self::Broken(_) => "broken",
        }
    }

    /// Why; none for `Pass`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Pass => None,
            Self::Known(reason)
            | Self::Fixed(reason)
            | Self::Fail(reason)
            | Self::Skip(reason)
            | Self::Broken(reason) => Some(reason),
        }
    }

    /// 0 for pass, known and skip, 1 for fail and fixed, 3 for broken; 2 is bad usage, which is no
    /// verdict. Of several the highest wins.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Pass | Self::Known(_) | Self::Skip(_) => 0,
            Self::Fixed(_) | Self::Fail(_) => 1,
            Self::Broken(_) => 3,
        }
    }
}

impl fmt::Display for Verdict {
    /// The word, and the first line of the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self.reason().and_then(|reason| reason.lines().next()) {
            Some(line) => write!(f, ": {line}"),
            None => Ok(()),
        }
    }
}

/// The exit code of a whole run.
#[must_use]
pub fn exit_code<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> u8 {
    verdicts
        .into_iter()
        .map(Verdict::exit_code)
        .max()
        .unwrap_or(0)
}

/// Judges two runs of control: anything that differs between them makes the scenario useless.
#[must_use]
pub fn judge_controls(differences: &[Difference]) -> Option<Verdict> {
    let first = differences.first()?;
    Some(Verdict::Broken(format!(
        "control differs from control: {}",
        summary(first, differences.len())
    )))
}

/// Judges the differences between control and restored.
///
/// `known` are the headers of the scenario that speak of this engine and version. `snapshot` is
/// the text that was accepted before, none where no snapshot is kept (a scenario from elsewhere, a
/// generated one): then the declarations alone decide.
#[must_use]
pub fn judge(
    differences: &[Difference],
    losses: &[Loss],
    known: &[Known],
    snapshot: Option<&str>,
    rendered: &str,
) -> Verdict {
    let defects: Vec<&Difference> = differences.iter().filter(|it| it.is_defect()).collect();
    let covered = |it: &Difference| losses.iter().any(|loss| covers(loss, it));
    let undeclared: Vec<_> = defects.iter().filter(|it| !covered(it)).collect();
    // Space at the end is the file's, not the run's.
    let differs = |snapshot: &&str| snapshot.trim_end() != rendered.trim_end();
    let unrecorded = snapshot.filter(differs);
    let races = known.iter().any(|known| known.races);
    if let (true, Some(snapshot)) = (races, unrecorded) {
        // That one run shows less is no proof that a difference is gone.
        return Verdict::Fail(format!(
            "an outcome of the race that no snapshot records:\n{}",
            text_diff(snapshot, rendered)
        ));
    }
    if known.is_empty() {
        if let Some(first) = undeclared.first() {
            return Verdict::Fail(format!("undeclared: {}", summary(first, undeclared.len())));
        }
    } else if defects.is_empty() && !(races && snapshot.is_some()) {
        return Verdict::Fixed(format!("nothing differs any more: {}", delete(known)));
    } else if undeclared.is_empty()
        && let Some(snapshot) = unrecorded.filter(|snapshot| is_difference_gone(snapshot, rendered))
    {
        return Verdict::Fixed(format!(
            "nothing differs any more but what the engine declares: {}\n{}",
            delete(known),
            text_diff(snapshot, rendered)
        ));
    }
    if let Some(snapshot) = unrecorded {
        return Verdict::Fail(format!(
            "not as the snapshot records:\n{}",
            text_diff(snapshot, rendered)
        ));
    }
    if defects.is_empty() {
        return Verdict::Pass;
    }
    let mut whys: Vec<String> = known.iter().map(|known| known.why.clone()).collect();
    if known.is_empty() {
        let used = losses
            .iter()
            .filter(|loss| defects.iter().any(|it| covers(loss, it)));
        for why in used.map(declaration) {
            if !whys.contains(&why) {
                whys.push(why);
            }
        }
    }
    Verdict::Known(whys.join("; "))
}

fn declaration(loss: &Loss) -> String {
    let kind = loss.kind.iter().map(|kind| format!("{kind}: "));
    format!(
        "{}{}: {}",
        kind.collect::<String>(),
        loss.object,
        loss.reason
    )
}

/// Whether a difference that a snapshot shows is not in the text any more. A snapshot that shows none is
/// the words of a cut that failed, and this one did not. Where all are still there, something else in
/// the text is new, such as a comment of the scenario, and no header is out of date.
fn is_difference_gone(snapshot: &str, rendered: &str) -> bool {
    fn differences(text: &str) -> impl Iterator<Item = &str> {
        let signed = |line: &&str| line.starts_with("- ") || line.starts_with("+ ");
        text.lines().filter(signed)
    }
    let mut left: Vec<&str> = differences(rendered).collect();
    let mut takes = |line: &str| {
        let found = left.iter().position(|it| *it == line);
        found.map(|index| left.swap_remove(index)).is_some()
    };
    differences(snapshot).next().is_none() || differences(snapshot).any(|line| !takes(line))
}

/// What is to be done about headers that are out of date.
fn delete(known: &[Known]) -> String {
    let whys = known.iter().map(|known| format!("{:?}", known.why));
    let whys: Vec<String> = whys.collect();
    format!("delete the known header {}", whys.join(", "))
}

/// Whether a declared loss accounts for a difference: the same group of invariants, and each `fd N`
/// and `wd N` that the loss names is one that the difference is about. A loss that names neither
/// has to name the object in full. A queue that is lost is not ready either.
#[must_use]
pub fn covers(loss: &Loss, difference: &Difference) -> bool {
    let named = numbers(&loss.object);
    let about = numbers(&difference.object);
    let follows =
        loss.invariant == invariant::UNREAD.group && difference.invariant == invariant::READY;
    (loss.invariant == difference.invariant.group || follows)
        && if named.is_empty() {
            difference.object.split(", ").any(|part| {
                !part.is_empty() && part == loss.object
                    || part.strip_suffix(" (deleted)") == Some(&loss.object)
            })
        } else {
            named.iter().all(|pair| about.contains(pair))
        }
}

/// The `fd N` and `wd N` in a text.
fn numbers(text: &str) -> Vec<(&str, i64)> {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| !word.is_empty())
        .collect();
    let pair = |pair: &[_]| {
        let (kind, number): (_, &str) = (pair[0], pair[1]);
        matches!(kind, "fd" | "wd").then(|| Some((kind, number.parse().ok()?)))?
    };
    words.windows(2).filter_map(pair).collect()
}

fn summary(first: &Difference, n_differences: usize) -> String {
    match n_differences {
        1 => first.to_string(),
        n => format!("{first} (and {} more)", n - 1),
    }
}

/// A unified diff: `-` as the snapshot has it, `+` as this run has it.
#[must_use]
pub fn text_diff(snapshot: &str, rendered: &str) -> String {
    let diff = TextDiff::from_lines(snapshot, rendered);
    diff.unified_diff()
        .context_radius(2)
        .header("snapshot", "this run")
        .to_string()
}

#[cfg(test)]
mod tests {
    use scenario::Place;

    use super::*;
    use crate::difference::{Kind, Side};
    use crate::invariant::{Invariant, Unavoidable};

    fn difference(invariant: Invariant, object: &str) -> Difference {
        Difference {
            place: Place::Step(3),
            kind: Kind::Lost,
            invariant,
            object: object.to_owned(),
            field: None,
            control: Some(Side {
                index: Some(0),
                text: "wd=1 IN_OPEN".to_owned(),
            }),
            restored: None,
            unavoidable: None,
            repeated: false,
        }
    }

    fn queue_loss() -> Loss {
        Loss {
            kind: Some("queue-dropped".to_owned()),
            invariant: 4,
            object: "queue of fd 3: 5 events".to_owned(),
            reason: "not carried over".to_owned(),
        }
    }

    fn known() -> Known {
        Known {
            engine: "criu".to_owned(),
            versions: None,
            races: false,
            why: "drops queues".to_owned(),
        }
    }

    struct Case {
        differences: Vec<Difference>,
        losses: Vec<Loss>,
        known: Vec<Known>,
        snapshot: Option<&'static str>,
    }

    fn check(case: &Case, word: &str, reason: &str) {
        let verdict = judge(
            &case.differences,
            &case.losses,
            &case.known,
            case.snapshot,
            "now\n",
        );
        assert_eq!(verdict.word(), word, "{verdict:?}");
        assert!(
            verdict.reason().unwrap_or_default().contains(reason),
            "{verdict:?}"
        );
    }

    fn case() -> Case {
        Case {
            differences: Vec::new(),
            losses: Vec::new(),
            known: Vec::new(),
            snapshot: None,
        }
    }

    #[test]
    fn equal_runs_pass() {
        check(&case(), "pass", "");
        check(
            &Case {
                snapshot: Some("now\n"),
                ..case()
            },
            "pass",
            "",
        );
        check(
            &Case {
                losses: vec![queue_loss()],
                ..case()
            },
            "pass",
            "",
        );
    }

    #[test]
    fn an_undeclared_difference_fails_whatever_the_snapshot_says() {
        let differences = vec![difference(invariant::UNREAD, "fd 3, wd 1")];
        let losses = vec![queue_loss()];
        check(
            &Case {
                differences: differences.clone(),
                snapshot: Some("now\n"),
                ..case()
            },
            "fail",
            "undeclared: step 4: fd 3, wd 1: wd=1 IN_OPEN: lost, I4.1",
        );
        let elsewhere = vec![
            differences[0].clone(),
            difference(invariant::UNREAD, "fd 30, wd 1"),
            difference(invariant::EVENT, "fd 3, wd 1"),
        ];
        check(
            &Case {
                differences: elsewhere,
                losses,
                ..case()
            },
            "fail",
            "(and 1 more)",
        );
    }

    #[test]
    fn a_declared_difference_is_known_by_its_reason() {
        let differences = vec![difference(invariant::UNREAD, "fd 3, wd 1")];
        let by_loss = Case {
            differences: differences.clone(),
            losses: vec![queue_loss()],
            ..case()
        };
        check(
            &by_loss,
            "known",
            "queue-dropped: queue of fd 3: 5 events: not carried over",
        );
        check(
            &Case {
                snapshot: Some("now\n"),
                ..by_loss
            },
            "known",
            "not carried over",
        );
        check(
            &Case {
                differences,
                known: vec![known()],
                ..case()
            },
            "known",
            "drops queues",
        );
    }

    #[test]
    fn a_declared_difference_that_is_gone_is_fixed() {
        check(
            &Case {
                known: vec![known()],
                ..case()
            },
            "fixed",
            "\"drops queues\"",
        );
        let unavoidable = Difference {
            unavoidable: Some(Unavoidable::Open),
            ..difference(invariant::BYSTANDER, "")
        };
        let differences = vec![unavoidable];
        check(
            &Case {
                known: vec![known()],
                differences,
                ..case()
            },
            "fixed",
            "delete",
        );
    }

    #[test]
    fn what_the_engine_declares_itself_does_not_keep_a_header() {
        let differences = vec![difference(invariant::UNREAD, "fd 3, wd 1")];
        let left = |snapshot| Case {
            differences: differences.clone(),
            losses: vec![queue_loss()],
            known: vec![known()],
            snapshot,
        };
        check(
            &left(Some("then\n")),
            "fixed",
            "but what the engine declares: delete",
        );
        check(
            &left(Some("read(n) = {\n- wd=1 IN_OPEN\n}\n")),
            "fixed",
            "\n-- wd=1 IN_OPEN\n",
        );
        // As it is recorded, or nowhere: a header may say more of what is declared.
        check(&left(Some("now\n")), "known", "drops queues");
        check(&left(None), "known", "drops queues");
    }

    #[test]
    fn a_comment_that_changed_leaves_no_header_behind() {
        let verdict = |snapshot, rendered| {
            let differences = [difference(invariant::UNREAD, "fd 3, wd 1")];
            judge(
                &differences,
                &[queue_loss()],
                &[known()],
                Some(snapshot),
                rendered,
            )
        };
        let line = "- wd=1 IN_OPEN\n";
        let old = format!("# Old.\n{line}");
        let new = format!("# New.\n{line}");
        let Verdict::Fail(reason) = verdict(&old, &new) else {
            panic!("{:?}", verdict(&old, &new));
        };
        assert!(reason.contains("\n-# Old.\n+# New.\n"), "{reason}");
        // Of two equal differences one is gone; of one, none is.
        let twice = format!("{old}{line}");
        assert_eq!(verdict(&twice, &new).word(), "fixed");
        assert_eq!(verdict(&new, &twice).word(), "fail");
    }

    #[test]
    fn a_race_may_end_without_a_difference_where_that_is_recorded() {
        let races = Known {
            races: true,
            ..known()
        };
        let ended = |snapshot| Case {
            known: vec![races.clone()],
            snapshot,
            ..case()
        };
        check(&ended(Some("now\n")), "pass", "");
        check(
            &ended(Some("then\n")),
            "fail",
            "an outcome of the race that no snapshot records:\n",
        );
        // Where no snapshot is kept, nothing says that this may be an outcome.
        check(&ended(None), "fixed", "nothing differs any more: delete");
        // Less than is recorded is an outcome of its own too.
        let fewer = Case {
            differences: vec![difference(invariant::UNREAD, "fd 3, wd 1")],
            ..ended(Some("read(n) = {\n- wd=1 IN_OPEN\n}\n"))
        };
        check(&fewer, "fail", "no snapshot records");
    }

    #[test]
    fn a_text_that_is_not_the_snapshot_fails_and_is_shown() {
        check(
            &Case {
                snapshot: Some("then\n"),
                ..case()
            },
            "fail",
            "\n-then\n+now\n",
        );
        let differences = vec![difference(invariant::UNREAD, "fd 3, wd 1")];
        let declared = Case {
            differences,
            losses: vec![queue_loss()],
            snapshot: Some("then\n"),
            ..case()
        };
        check(&declared, "fail", "not as the snapshot records");
    }

    #[test]
    fn a_loss_covers_the_descriptors_that_it_names() {
        let covers = |object: &str, about: &str| {
            let loss = Loss {
                object: object.to_owned(),
                ..queue_loss()
            };
            super::covers(&loss, &difference(invariant::UNREAD, about))
        };
        assert!(covers("fd 3", "fd 3, wd 1"));
        assert!(covers("fd 3, wd 1", "fd 3, wd 1"));
        assert!(!covers("fd 3, wd 2", "fd 3, wd 1"));
        assert!(!covers("fd 3", "fd 33, wd 3"));
        assert!(covers("\"dir/a\"", "\"dir/a\" (deleted)"));
        assert!(covers("\"dir/a\"", "fd 4, \"dir/a\""));
        assert!(!covers("a", "\"dir/a\""));
        assert!(!covers("\"dir\"", "\"dir/a\""));
        assert!(!covers("", "fd 3"));
        assert!(!covers("", ""));
        assert!(!covers("fd 3", ""));
        let ready = difference(invariant::READY, "fd 5, fd 3");
        assert!(super::covers(&queue_loss(), &ready));
        assert!(!super::covers(
            &queue_loss(),
            &difference(invariant::READY, "fd 5, fd 4")
        ));
    }

    #[test]
    fn the_highest_exit_code_wins() {
        let fail = || Verdict::Fail("x".to_owned());
        let broken = || Verdict::Broken("x".to_owned());
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(
            exit_code(&[Verdict::Pass, Verdict::Known("x".to_owned())]),
            0
        );
        assert_eq!(exit_code(&[Verdict::Skip("x".to_owned()), fail()]), 1);
        assert_eq!(exit_code(&[Verdict::Fixed("x".to_owned())]), 1);
        assert_eq!(exit_code(&[broken(), fail()]), 3);
    }

    #[test]
    fn a_verdict_is_told_in_a_line() {
        let fail = Verdict::Fail("first\nsecond".to_owned());
        assert_eq!(fail.to_string(), "fail: first");
        assert_eq!(Verdict::Pass.to_string(), "pass");
    }

    #[test]
    fn controls_that_differ_are_broken() {
        assert_eq!(judge_controls(&[]), None);
        let verdict = judge_controls(&[difference(invariant::EVENT, "fd 3, wd 1")]);
        assert!(matches!(verdict, Some(Verdict::Broken(reason)) if reason.contains("I6.2")));
    }
}
