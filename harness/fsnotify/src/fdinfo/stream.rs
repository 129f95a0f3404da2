//! Text that comes in pieces: reads of a seq_file end anywhere in a line.

use super::error::ParseError;
use super::lines::Reader;
use super::{Level, Line, MAX_LINE, Options, scan};

/// Reads pieces of a text, and gives the same lines and the same error as [`super::Lines`] gives for
/// the whole. Holds at most one line; allocates nothing.
#[derive(Clone, Debug)]
pub struct Stream {
    reader: Reader,
    /// The beginning of a line whose end has not come yet.
    kept: [u8; MAX_LINE],
    n_kept: usize,
    failed: Option<ParseError>,
}

impl Stream {
    /// A stream with default limits.
    #[must_use]
    pub const fn new(level: Level) -> Self {
        Self::with(Options::new(level))
    }

    #[must_use]
    pub const fn with(options: Options) -> Self {
        Self {
            reader: Reader::new(options),
            kept: [0; MAX_LINE],
            n_kept: 0,
            failed: None,
        }
    }

    /// Reads the next piece; calls `each` for every line that is complete.
    ///
    /// # Errors
    ///
    /// The error of the first line that is refused, now and on every later call.
    pub fn push(&mut self, piece: &[u8], each: impl FnMut(Line<'_>)) -> Result<(), ParseError> {
        self.unless_failed(|stream| stream.read(piece, each))
    }

    /// Ends the text.
    ///
    /// # Errors
    ///
    /// As [`Stream::push`]; and the text ends inside a line, or lacks something.
    pub fn finish(mut self, each: impl FnMut(Line<'_>)) -> Result<(), ParseError> {
        self.unless_failed(|stream| stream.read_end(each))
    }

    fn unless_failed(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        match self.failed {
            Some(error) => Err(error),
            None => read(self).inspect_err(|error| self.failed = Some(*error)),
        }
    }

    fn read(&mut self, piece: &[u8], mut each: impl FnMut(Line<'_>)) -> Result<(), ParseError> {
        let mut rest = piece;
        while self.n_kept > 0 && !rest.is_empty() {
            let space = MAX_LINE - self.n_kept;
            let end = scan::line_feed(&rest[..rest.len().min(space)]);
            let n_taken = end.map_or(rest.len().min(space), |end| end + 1);
            self.keep(&rest[..n_taken]);
            rest = &rest[n_taken..];
            if end.is_some() || self.n_kept == MAX_LINE {
                self.read_kept(end.is_some(), &mut each)?;
            }
        }
        let end = rest.iter().rposition(|byte| *byte == b'\n');
        let (mut lines, mut tail) = rest.split_at(end.map_or(0, |end| end + 1));
        while !lines.is_empty() {
            let (line, length) = self.reader.step(lines)?;
            each(line);
            lines = &lines[length..];
        }
        while !tail.is_empty() {
            let n_taken = tail.len().min(MAX_LINE - self.n_kept);
            self.keep(&tail[..n_taken]);
            tail = &tail[n_taken..];
            if self.n_kept == MAX_LINE {
                self.read_kept(false, &mut each)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept[self.n_kept..][..bytes.len()].copy_from_slice(bytes);
        self.n_kept += bytes.len();
    }

    /// Reads what is kept: all of it if it holds the end of a line; otherwise there is a line too
    /// long, or locks without end to step over.
    fn read_kept(
        &mut self,
        to_the_end: bool,
        each: &mut impl FnMut(Line<'_>),
    ) -> Result<(), ParseError> {
        let mut at = 0;
        while at < self.n_kept && (to_the_end || at == 0) {
            let (line, length) = self.reader.step(&self.kept[at..self.n_kept])?;
            each(line);
            at += length;
        }
        self.kept.copy_within(at..self.n_kept, 0);
        self.n_kept -= at;
        Ok(())
    }

    fn read_end(&mut self, mut each: impl FnMut(Line<'_>)) -> Result<(), ParseError> {
        self.read_kept(true, &mut each)?;
        self.reader.finish()
    }
}
