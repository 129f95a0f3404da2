//! Two runs as a picture: steps down the middle, what control noticed on the left, what restored
//! noticed on the right, and the cut across.

use std::fmt::Write as _;

use fsnotify::counted;
use scenario::{Call, Place, Scenario};
use verify::{Kind, Row, SideBySide};

const WIDTH: usize = 1120;
/// The two lanes, between which the steps stand.
const LEFT: usize = 340;
const RIGHT: usize = WIDTH - LEFT;
const LINE: usize = 18;
const TOP: usize = 44;
/// Characters that fit into a side and into the middle: 6.6 units each at this size of type.
const SIDE_CHARS: usize = 49;
const STEP_CHARS: usize = 62;
/// Rows shown at one place; a flood has thousands.
const MAX_ROWS: usize = 40;

/// SVG, for inclusion in HTML. Colours come from classes.
pub(super) fn picture(scenario: &Scenario, engine: &str, places: &[SideBySide]) -> String {
    let mut picture = Picture {
        body: String::new(),
        y: TOP,
    };
    let at = |place: Place| places.iter().find(|it| it.place == place);
    for (index, step) in scenario.steps.iter().enumerate() {
        let is_cut = step.call == Call::Checkpoint;
        picture.step(&step.to_string(), is_cut.then_some(engine));
        if let Some(place) = at(Place::Step(index)) {
            picture.rows(&place.rows);
        }
    }
    if let Some(end) = at(Place::End) {
        picture.step("end", None);
        picture.rows(&end.rows);
    }
    picture.finish(engine)
}

struct Picture {
    body: String,
    y: usize,
}

impl Picture {
    fn write(&mut self, args: std::fmt::Arguments<'_>) {
        self.body
            .write_fmt(args)
            .expect("a String takes everything");
    }

    fn text(&mut self, x: usize, class: &str, text: &str, max: usize) {
        self.titled(x, class, &shorten(text, max), text);
    }

    /// One of two texts that are the same before `from`, where what differs has to be seen.
    fn side(&mut self, x: usize, class: &str, text: &str, from: usize) {
        self.titled(x, class, &shorten_before(text, from, SIDE_CHARS), text);
    }

    fn titled(&mut self, x: usize, class: &str, shown: &str, text: &str) {
        let y = self.y + 13;
        let shown = escape(shown);
        let full = escape(text);
        self.write(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{shown}<title>{full}</title></text>"
        ));
    }

    fn step(&mut self, text: &str, cut_by: Option<&str>) {
        let (middle, y) = (WIDTH / 2, self.y);
        if let Some(engine) = cut_by {
            self.write(format_args!(
                "<rect x=\"0\" y=\"{y}\" width=\"{WIDTH}\" height=\"{LINE}\" class=\"cut\"/>"
            ));
            self.text(
                middle,
                "step cut-text",
                &format!("checkpoint: cut by {engine}"),
                STEP_CHARS,
            );
        } else {
            let dot = y + LINE / 2;
            for lane in [LEFT, RIGHT] {
                self.write(format_args!(
                    "<circle cx=\"{lane}\" cy=\"{dot}\" r=\"2.5\" class=\"lane-dot\"/>"
                ));
            }
            self.text(middle, "step", text, STEP_CHARS);
        }
        self.y += LINE;
    }

    fn rows(&mut self, rows: &[Row]) {
        // Every kind of difference has to be seen, so what is the same gives way first.
        let n_same = MAX_ROWS.saturating_sub(rows.iter().filter(|it| it.differs.is_some()).count());
        let (mut same, mut shown) = (0, 0);
        for row in rows {
            if row.differs.is_none() {
                same += 1;
            }
            if shown < MAX_ROWS && (row.differs.is_some() || same <= n_same.max(4)) {
                self.row(row);
                shown += 1;
            }
        }
        if rows.len() > shown {
            self.text(
                WIDTH / 2,
                "step more",
                &format!("{} more", counted(rows.len() - shown, "row")),
                STEP_CHARS,
            );
            self.y += LINE;
        }
    }

    fn row(&mut self, row: &Row) {
        let class = match row.differs {
            None => "same",
            Some(_) if row.unavoidable => "unavoidable",
            Some((Kind::Lost, _)) => "lost",
            Some((Kind::Spurious, _)) => "spurious",
            Some((Kind::Changed, _)) => "changed",
            Some((Kind::Reordered, _)) => "reordered",
            Some((Kind::Outcome, _)) => "outcome",
        };
        let (y, height) = (self.y + 1, LINE - 2);
        let from = match (&row.control, &row.restored) {
            (Some(control), Some(restored)) => apart(control, restored),
            _ => 0,
        };
        if let Some(text) = &row.control {
            self.write(format_args!(
                "<rect x=\"0\" y=\"{y}\" width=\"{}\" height=\"{height}\" class=\"box {class}\"/>",
                LEFT - 10
            ));
            self.side(LEFT - 16, &format!("left {class}"), text, from);
        }
        if let Some(text) = &row.restored {
            self.write(format_args!(
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{height}\" class=\"box {class}\"/>",
                RIGHT + 10,
                LEFT - 10
            ));
            self.side(RIGHT + 16, &format!("right {class}"), text, from);
        }
        self.link(row, class);
        self.y += LINE;
    }

    /// The line from one side to the other: whole where both have the fact, with a remark where
    /// they differ.
    fn link(&mut self, row: &Row, class: &str) {
        let (middle, y) = (WIDTH / 2, self.y + LINE / 2);
        let (from, to) = match (&row.control, &row.restored) {
            (Some(_), Some(_)) => (LEFT - 10, RIGHT + 10),
            (Some(_), None) => (LEFT - 10, LEFT + 30),
            (None, _) => (RIGHT - 30, RIGHT + 10),
        };
        self.write(format_args!(
            "<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" class=\"link {class}\"/>"
        ));
        if let Some((kind, invariant)) = row.differs {
            let remark = if row.unavoidable {
                "unavoidable".to_owned()
            } else {
                format!("{kind} {invariant}")
            };
            self.text(middle, &format!("remark {class}"), &remark, STEP_CHARS);
        }
    }

    fn finish(self, engine: &str) -> String {
        let height = self.y + 12;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" class=\"timeline\" role=\"img\" aria-label=\"control and {} side by side\">",
            escape(engine)
        );
        for (x, name) in [(LEFT, "control"), (RIGHT, engine)] {
            let head = format!(
                "<line x1=\"{x}\" y1=\"32\" x2=\"{x}\" y2=\"{height}\" class=\"lane\"/><text x=\"{x}\" y=\"22\" class=\"lane-name\">{}</text>",
                escape(name)
            );
            out.push_str(&head);
        }
        out.push_str(&self.body);
        out.push_str("</svg>");
        out
    }
}

fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

/// Where two texts that do not both fit into a side begin to differ, at the last word before that; 0
/// where nothing has to be left out, or nothing differs.
fn apart(control: &str, restored: &str) -> usize {
    let fits = |text: &str| text.chars().count() <= SIDE_CHARS;
    if control == restored || fits(control) && fits(restored) {
        return 0;
    }
    let same = control.chars().zip(restored.chars());
    let same: Vec<char> = same
        .take_while(|(left, right)| left == right)
        .map(|(letter, _)| letter)
        .collect();
    // The word before the first that differs, so that one that is only there more is seen.
    let mut ends = (0..same.len())
        .rev()
        .filter(|&at| matches!(same[at], ' ' | '|'));
    ends.nth(1).map_or(0, |end| end + 1)
}

/// The text without what stands between its first words and `from`, and shortened as much as it takes.
fn shorten_before(text: &str, from: usize, max: usize) -> String {
    const HEAD: usize = 12;
    if from <= HEAD + 1 {
        return shorten(text, max);
    }
    let letters: Vec<char> = text.chars().collect();
    let head: String = letters[..HEAD].iter().collect();
    let rest: String = letters[from.min(letters.len())..].iter().collect();
    format!("{head}…{}", shorten(&rest, max - HEAD - 1))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_far_behind_is_seen_on_both_sides() {
        let mask = "wd=12: mask IN_MODIFY|IN_ATTRIB|IN_MOVED_FROM|IN_MOVED_TO|IN_DELETE";
        let more = format!("{mask}|IN_EXCL_UNLINK");
        let from = apart(&more, mask);
        let shown = |text: &str| shorten_before(text, from, SIDE_CHARS);
        assert_eq!(
            shown(&more),
            "wd=12: mask …IN_MOVED_TO|IN_DELETE|IN_EXCL_UNLINK"
        );
        assert_eq!(shown(mask), "wd=12: mask …IN_MOVED_TO|IN_DELETE");
        assert_eq!(apart("fd 5: unread bytes 0", "fd 5: unread bytes 32"), 0);
        assert_eq!(apart(mask, mask), 0);
    }
}
