//! The cut, moved to other places of a scenario.
//!
//! What holds across a cut at one place has to hold across a cut at any place: a scenario is written
//! with its checkpoint where it is hardest, and tried with it everywhere.

use std::mem;

use crate::{Call, Expect, Name, Phase, Scenario, Step};

/// Where a cut can stand: before this many of the steps that are no checkpoint. Not between the two
/// halves of a call, since the process that is in it cannot be stopped.
#[must_use]
pub fn positions(scenario: &Scenario) -> Vec<usize> {
    let steps = scenario.steps.iter();
    let steps = steps.filter(|step| step.call != Call::Checkpoint);
    let mut n_unfinished = 0_usize;
    let mut positions = vec![0];
    for (index, step) in steps.enumerate() {
        match step.phase {
            Phase::Whole => {}
            Phase::Unfinished => n_unfinished += 1,
            Phase::Resumed => n_unfinished = n_unfinished.saturating_sub(1),
        }
        if n_unfinished == 0 {
            positions.push(index + 1);
        }
    }
    positions
}

/// The scenario with its checkpoints at these positions, rising, and nowhere else. Comments stay
/// before the steps that they stand before.
#[must_use]
pub fn cut_at(scenario: &Scenario, positions: &[usize]) -> Scenario {
    let mut steps = Vec::new();
    let mut notes = Vec::new();
    let mut position = 0;
    let mut positions = positions.iter().peekable();
    for step in &scenario.steps {
        let mut step = step.clone();
        notes.append(&mut step.notes);
        if step.call == Call::Checkpoint {
            continue;
        }
        while positions.next_if(|at| **at == position).is_some() {
            steps.push(checkpoint());
        }
        step.notes = mem::take(&mut notes);
        steps.push(step);
        position += 1;
    }
    steps.extend(
        positions
            .filter(|at| **at >= position)
            .map(|_| checkpoint()),
    );
    notes.extend(scenario.tail.iter().cloned());
    Scenario {
        steps,
        tail: notes,
        ..scenario.clone()
    }
}

/// The scenario with every checkpoint made this many times, one right behind the other.
#[must_use]
pub fn repeat_cuts(scenario: &Scenario, n_times: usize) -> Scenario {
    let steps = scenario.steps.iter().flat_map(|step| {
        let n_more = match step.call {
            Call::Checkpoint => n_times.saturating_sub(1),
            _ => 0,
        };
        std::iter::once(step.clone()).chain((0..n_more).map(|_| checkpoint()))
    });
    Scenario {
        steps: steps.collect(),
        ..scenario.clone()
    }
}

fn checkpoint() -> Step {
    Step {
        notes: Vec::new(),
        process: None::<Name>,
        call: Call::Checkpoint,
        phase: Phase::Whole,
        args: Vec::new(),
        expect: Expect::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse, print};

    const TEXT: &str = "\
# A cut is moved.
requires root
# one
mkdir(\"a\", 0755)

# two
checkpoint
# three
mkdir(\"b\", 0755)
checkpoint
# end
";

    fn check(text: &str, positions: &[usize], expected: &str) {
        let scenario = parse(text).expect("the text is sound").scenario;
        let cut = cut_at(&scenario, positions);
        assert_eq!(print(&cut), expected);
        assert_eq!(cut_at(&cut, positions), cut);
        assert_eq!(cut_at(&cut, &[]), cut_at(&scenario, &[]));
    }

    #[test]
    fn cuts_move_and_comments_stay() {
        let head = "# A cut is moved.\nrequires root\n";
        let one = "# one\nmkdir(\"a\", 0755)\n";
        let two = "\n# two\n# three\nmkdir(\"b\", 0755)\n";
        let end = "# end\n";
        let cut = "checkpoint\n";
        check(TEXT, &[], &format!("{head}{one}{two}{end}"));
        check(TEXT, &[0], &format!("{head}{cut}{one}{two}{end}"));
        check(TEXT, &[1], &format!("{head}{one}{cut}{two}{end}"));
        check(
            TEXT,
            &[0, 1, 2],
            &format!("{head}{cut}{one}{cut}{two}{cut}{end}"),
        );
        check(TEXT, &[1, 1], &format!("{head}{one}{cut}{cut}{two}{end}"));
    }

    #[test]
    fn no_cut_parts_a_call() {
        let text = "\
# A call blocks.
fork() = p
[p] open(\"f\", O_RDONLY) <unfinished ...>
checkpoint
signals()
[p] <... open resumed>
";
        let scenario = parse(text).expect("the text is sound").scenario;
        assert_eq!(positions(&scenario), [0, 1, 4]);
    }

    #[test]
    fn every_cut_is_repeated() {
        let scenario = parse(TEXT).expect("the text is sound").scenario;
        let repeated = print(&repeat_cuts(&scenario, 3));
        assert_eq!(repeated.matches("checkpoint\n").count(), 6);
        assert_eq!(repeat_cuts(&scenario, 1), scenario);
    }
}
