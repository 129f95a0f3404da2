//! Header lines.

use std::ops::Range;

use crate::problem::ProblemKind;
use crate::requirement;
use crate::step::{Known, Note, Requirement};
use crate::suggest::nearest;

use super::value::Cursor;
use super::{Reader, Stage};

/// The words that start a header line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Header {
    Requires,
    Known,
    CriuOpts,
}

impl Header {
    const fn word(self) -> &'static str {
        match self {
            Self::Requires => "requires",
            Self::Known => "known",
            Self::CriuOpts => "criu-opts",
        }
    }
}

pub(super) fn header_of(content: &str) -> Option<Header> {
    let word = content.split([' ', '\t']).next()?;
    let headers = [Header::Requires, Header::Known, Header::CriuOpts];
    headers.into_iter().find(|header| header.word() == word)
}

impl Reader {
    pub(super) fn header(&mut self, text: &str, line: Range<usize>, header: Header) {
        if self.stage == Stage::Steps {
            self.problems
                .push(ProblemKind::HeaderAfterSteps(header.word()).at(line));
            return;
        }
        self.stage = Stage::Header;
        for (note, span) in self.notes.drain(..) {
            if note != Note::Blank {
                self.problems.push(ProblemKind::CommentInHeader.at(span));
            }
        }
        let rest = line.start + header.word().len()..line.end;
        let cursor = Cursor::new(text, rest);
        match header {
            Header::Requires => self.requires(&cursor, line),
            Header::Known => self.known(cursor, line),
            Header::CriuOpts => self.criu_opts(&cursor, line),
        }
    }

    fn requires(&mut self, cursor: &Cursor, line: Range<usize>) {
        if cursor.is_at_end() {
            let form = "requires WORD...";
            self.problems.push(ProblemKind::HeaderSyntax(form).at(line));
        }
        for (word, span) in words_of(cursor) {
            let requirement = Requirement(word.to_owned());
            let scenario = &mut self.parsed.scenario;
            if requirement.need().is_none() {
                let known: Vec<String> = requirement::words().collect();
                let kind = ProblemKind::UnknownRequirement {
                    word: word.to_owned(),
                    near: nearest(word, known.iter().map(String::as_str)).map(str::to_owned),
                };
                self.problems.push(kind.at(span));
            } else if scenario.requires.contains(&requirement) {
                self.problems
                    .push(ProblemKind::RepeatedRequirement.at(span));
            } else {
                scenario.requires.push(requirement);
                self.parsed.requirement_spans.push(span);
            }
        }
    }

    fn known(&mut self, mut cursor: Cursor, line: Range<usize>) {
        let form = ProblemKind::HeaderSyntax(r#"known ENGINE [<= VERSION] [races] "why""#);
        let Some(quote) = cursor.rest().find('"') else {
            self.problems.push(form.at(line));
            return;
        };
        let before = &cursor.rest()[..quote];
        let mut words = before.split_ascii_whitespace();
        let engine = words.next().filter(|word| is_engine_name(word));
        let mut versions: Vec<&str> = words.collect();
        let races = versions.pop_if(|word| *word == "races").is_some();
        let has_form = versions.len().is_multiple_of(2)
            && versions
                .chunks(2)
                .all(|pair| ["<", "<=", ">", ">=", "="].contains(&pair[0]) && is_version(pair[1]));
        cursor.at += quote;
        match (engine, cursor.string()) {
            (_, Err(problem)) => self.problems.push(problem),
            (Some(engine), Ok(why)) if has_form && cursor.is_at_end() => {
                let versions = (!versions.is_empty()).then(|| versions.join(" "));
                self.parsed.scenario.known.push(Known {
                    engine: engine.to_owned(),
                    versions,
                    races,
                    why: String::from_utf8_lossy(&why).into_owned(),
                });
            }
            _ => self.problems.push(form.at(line)),
        }
    }

    fn criu_opts(&mut self, cursor: &Cursor, line: Range<usize>) {
        if cursor.is_at_end() {
            let form = "criu-opts OPTION...";
            self.problems.push(ProblemKind::HeaderSyntax(form).at(line));
        }
        let words = words_of(cursor).map(|(word, _)| word.to_owned());
        self.parsed.scenario.criu_opts.extend(words);
    }
}

fn words_of<'a>(cursor: &Cursor<'a>) -> impl Iterator<Item = (&'a str, Range<usize>)> {
    let rest = cursor.rest();
    let start = cursor.at;
    rest.split_ascii_whitespace().map(move |word| {
        let at = start + (word.as_ptr().addr() - rest.as_ptr().addr());
        (word, at..at + word.len())
    })
}

fn is_engine_name(word: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.bytes().all(inside)
}

fn is_version(word: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    word.split('.').all(is_number)
}
