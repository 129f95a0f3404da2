//! The lines of a text, one after another.

use std::iter::FusedIterator;

use super::cursor::Cursor;
use super::error::{ErrorKind, Excerpt, Fault, ParseError};
use super::head::{self, HeadKey, Seen};
use super::mark::{Form, RawMark, RawWatch};
use super::{
    Kind, Level, Line, Lock, MAX_LINE, Options, Tolerance, explain, lock, mark, quick, scan,
};

/// Iterator over the typed lines of a whole text. Allocates nothing; ends after the first error.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    reader: Reader,
    ended: bool,
}

impl<'a> Lines<'a> {
    /// The lines of `text` with default limits.
    #[must_use]
    pub const fn new(text: &'a [u8], level: Level) -> Self {
        Self::with(text, Options::new(level))
    }

    /// The lines of `text`.
    #[must_use]
    pub const fn with(text: &'a [u8], options: Options) -> Self {
        Self {
            rest: text,
            reader: Reader::new(options),
            ended: false,
        }
    }

    /// As [`Iterator::next`], for whoever keeps the line or passes it on, where a call more does not
    /// count: that goes into its caller as often as it stands there.
    pub(super) fn next_apart(&mut self) -> Option<Result<Line<'a>, ParseError>> {
        self.next_by::<false>()
    }

    /// The next line; the usual shape was tried already, or is tried here.
    ///
    /// Two copies and no pointer to either step: a fuzzer notes each call by a pointer.
    #[inline(never)]
    fn next_by<const TRIED: bool>(&mut self) -> Option<Result<Line<'a>, ParseError>> {
        if self.ended {
            return None;
        }
        if self.rest.is_empty() {
            self.ended = true;
            return self.reader.finish().err().map(Err);
        }
        let read = if TRIED {
            self.reader.step_of_any_shape(self.rest)
        } else {
            self.reader.step(self.rest)
        };
        match read {
            Ok((line, length)) => {
                self.rest = &self.rest[length..];
                Some(Ok(line))
            }
            Err(error) => {
                self.ended = true;
                self.rest = &[];
                Some(Err(error))
            }
        }
    }

    /// What has not been read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Number of the line that was last yielded, from 1.
    #[must_use]
    pub const fn line_number(&self) -> usize {
        self.reader.line_number()
    }

    /// What was tolerated in the line that was last yielded.
    #[must_use]
    pub const fn tolerance(&self) -> Option<Tolerance> {
        self.reader.tolerance
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, ParseError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((line, length)) = self.reader.usual_line(self.rest) {
            self.rest = &self.rest[length..];
            return Some(Ok(line.decode()));
        }
        self.next_by::<true>()
    }
}

impl FusedIterator for Lines<'_> {}

/// What has been read so far: all that a line depends on beside its own text.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    options: Options,
    seen: Seen,
    in_body: bool,
    has_locks: bool,
    has_group: bool,
    body: Option<Kind>,
    n_marks: usize,
    n_bytes: usize,
    /// Line feeds passed.
    n_lines: usize,
    /// Whether the last step ended its line.
    at_line_start: bool,
    /// Bytes of this line that earlier steps took: more than zero behind a hidden lock.
    taken: usize,
    pub(super) tolerance: Option<Tolerance>,
}

impl Reader {
    pub(super) const fn new(options: Options) -> Self {
        Self {
            options,
            seen: Seen::new(),
            in_body: false,
            has_locks: false,
            has_group: false,
            body: None,
            n_marks: 0,
            n_bytes: 0,
            n_lines: 0,
            at_line_start: true,
            taken: 0,
            tolerance: None,
        }
    }

    const fn line_number(&self) -> usize {
        if self.at_line_start {
            self.n_lines
        } else {
            self.n_lines + 1
        }
    }

    /// Reads the line at the start of `rest`, which is not empty; gives it and its length.
    #[inline(never)]
    pub(super) fn step<'a>(&mut self, rest: &'a [u8]) -> Result<(Line<'a>, usize), ParseError> {
        match self.usual_line(rest) {
            Some((line, length)) => Ok((line.decode(), length)),
            None => self.step_of_any_shape(rest),
        }
    }

    /// Reads a line of a body that has begun, if it has the usual shape.
    #[inline(always)]
    fn usual_line<'a>(&mut self, rest: &'a [u8]) -> Option<(BodyLine<'a>, usize)> {
        let (line, behind) = match self.body? {
            Kind::Inotify => {
                let (watch, behind) = quick::watch(rest)?;
                (BodyLine::Watch(watch), behind)
            }
            Kind::Fanotify => {
                let (mark, behind) = quick::mark(rest)?;
                (BodyLine::Mark(mark), behind)
            }
        };
        let length = rest.len() - behind.len();
        let n_bytes = self.n_bytes + length;
        if n_bytes > self.options.max_text || self.n_marks >= self.options.max_marks {
            return None;
        }
        self.n_bytes = n_bytes;
        self.n_marks += 1;
        self.n_lines += 1;
        self.tolerance = None;
        Some((line, length))
    }

    /// The same as [`Reader::step`], for every line.
    fn step_of_any_shape<'a>(&mut self, rest: &'a [u8]) -> Result<(Line<'a>, usize), ParseError> {
        self.tolerance = None;
        match self.body_line(rest) {
            Ok((Some(line), length)) => {
                self.pass(rest, length)?;
                Ok((line.decode(), length))
            }
            Ok((None, _)) => self.other_step(rest),
            Err(refusal) => Err(self.refuse(rest, refusal)),
        }
    }

    /// A step over a line of another kind.
    #[inline(never)]
    fn other_step<'a>(&mut self, rest: &'a [u8]) -> Result<(Line<'a>, usize), ParseError> {
        let (line, length) = match self.other_line(rest) {
            Ok(read) => read,
            Err(refusal) => return Err(self.refuse(rest, refusal)),
        };
        let taken = self.taken;
        self.pass(rest, length)?;
        if matches!(line, Line::Lock(Lock::Hidden)) {
            self.n_lines -= 1;
            self.at_line_start = false;
            self.taken = taken + length;
        }
        Ok((line, length))
    }

    /// Counts a line that was read.
    #[inline(always)]
    fn pass(&mut self, rest: &[u8], length: usize) -> Result<(), ParseError> {
        self.n_bytes += length;
        if self.n_bytes > self.options.max_text {
            return Err(self.refuse(rest, Fault::new(ErrorKind::TooLarge, 0, "").into()));
        }
        self.at_line_start = true;
        self.taken = 0;
        self.n_lines += 1;
        Ok(())
    }

    /// Refuses a text that ends here and lacks something.
    pub(super) fn finish(&self) -> Result<(), ParseError> {
        let missing = match (self.options.kind, self.has_group) {
            (Some(Kind::Fanotify), false) => Err(Fault::new(ErrorKind::GroupMissing, 0, "flags")),
            (Some(Kind::Fanotify), true) | (Some(Kind::Inotify) | None, _) => Ok(()),
        };
        let complete = self.seen.complete().and(missing);
        complete.map_err(|fault| self.locate(fault, Excerpt::new(b"")))
    }

    /// A watch or a mark of a known kind, if one stands here.
    #[inline(always)]
    fn body_line<'a>(&mut self, rest: &'a [u8]) -> Result<(Option<BodyLine<'a>>, usize), Refusal> {
        const WD: &[u8] = b"inotify wd:";
        const FANOTIFY: &[u8] = b"fanotify ";
        let level = self.options.level;
        if rest.starts_with(WD) {
            self.enter_body(Kind::Inotify)?;
            let watch = mark::watch(Cursor::new(rest, WD.len()), level);
            let (watch, length) = self.accept(watch, &mark::WATCH)?;
            return Ok((Some(BodyLine::Watch(watch)), length));
        }
        let mut cursor = Cursor::new(rest, 0);
        if !cursor.take(FANOTIFY) {
            return Ok((None, 0));
        }
        let (parsed, form) = if cursor.take(b"ino:") {
            self.enter_marks()?;
            (mark::inode(cursor, level), &mark::INODE)
        } else if cursor.take(b"sdev:") {
            self.enter_marks()?;
            (mark::filesystem(cursor, level), &mark::FILESYSTEM)
        } else if cursor.take(b"mnt_id:") {
            self.enter_marks()?;
            (mark::mount(cursor, level), &mark::MOUNT)
        } else if cursor.take(b"mnt_ns:") {
            self.enter_marks()?;
            (mark::mount_namespace(cursor, level), &mark::MOUNT_NAMESPACE)
        } else {
            return Ok((None, 0));
        };
        let (mark, length) = self.accept(parsed, form)?;
        Ok((Some(BodyLine::Mark(mark)), length))
    }

    fn group<'a>(&mut self, cursor: Cursor<'a>) -> Result<(Line<'a>, usize), Refusal> {
        if self.has_group {
            return Err(Fault::new(ErrorKind::GroupDuplicate, 0, "flags").into());
        }
        self.enter_body(Kind::Fanotify)?;
        self.has_group = true;
        let parsed = mark::group(cursor, self.options.level);
        let ((flags, event_flags), length) = self.accept(parsed, &mark::GROUP)?;
        Ok((Line::Group { flags, event_flags }, length))
    }

    #[inline(always)]
    fn accept<T>(
        &mut self,
        parsed: Result<mark::Parsed<T>, Fault>,
        form: &'static Form,
    ) -> Result<(T, usize), Refusal> {
        let form = Some(form);
        let (value, length, tolerance) = parsed.map_err(|fault| Refusal { fault, form })?;
        self.tolerance = tolerance;
        Ok((value, length))
    }

    #[inline]
    fn enter_marks(&mut self) -> Result<(), Fault> {
        self.enter_body(Kind::Fanotify)?;
        if self.has_group {
            Ok(())
        } else {
            Err(Fault::new(ErrorKind::GroupMissing, 0, "flags"))
        }
    }

    /// Notes a line of the body that belongs to this kind.
    #[inline(always)]
    fn enter_body(&mut self, kind: Kind) -> Result<(), Fault> {
        if self.body == Some(kind) {
            return self.count_mark();
        }
        if self.options.kind.is_some_and(|stated| stated != kind) {
            return Err(Fault::new(ErrorKind::KindMismatch, 0, ""));
        }
        if self.body.is_some() {
            return Err(Fault::new(ErrorKind::MixedKinds, 0, ""));
        }
        self.body = Some(kind);
        self.enter_some_body()
    }

    fn enter_some_body(&mut self) -> Result<(), Fault> {
        self.seen.complete()?;
        self.in_body = true;
        self.count_mark()
    }

    #[inline(always)]
    fn count_mark(&mut self) -> Result<(), Fault> {
        self.n_marks += 1;
        // The line of a fanotify group is counted too, and leaves room for as many marks.
        if self.n_marks > self.options.max_marks + usize::from(self.has_group) {
            return Err(Fault::new(ErrorKind::TooMany, 0, ""));
        }
        Ok(())
    }

    /// A line of the head, a lock, the line of a fanotify group, or something unknown.
    fn other_line<'a>(&mut self, rest: &'a [u8]) -> Result<(Line<'a>, usize), Refusal> {
        if self.options.glued_locks && is_hidden_lock(rest) {
            self.enter_locks()?;
            return Ok((Line::Lock(Lock::Hidden), lock::PREFIX.len()));
        }
        const GROUP: &[u8] = b"fanotify flags:";
        if rest.starts_with(GROUP) {
            return self.group(Cursor::new(rest, GROUP.len()));
        }
        let length = line_length(rest).ok_or(Fault::new(ErrorKind::Truncated, 0, ""))?;
        let line = &rest[..length];
        if let Some(key) = HeadKey::of(line) {
            if self.in_body || self.has_locks {
                return Err(self.seen.refuse(key).into());
            }
            self.seen.note(key)?;
            return Ok(head::value(key, line)?);
        }
        if line.starts_with(b"lock:") {
            self.enter_locks()?;
            if !line.starts_with(lock::PREFIX) {
                return Err(Fault::new(ErrorKind::BadSeparator, 5, "lock").into());
            }
            let (lock, length) = lock::parse(line)?;
            return Ok((Line::Lock(lock), length));
        }
        let line = self.unknown(&line[..length - 1])?;
        Ok((line, length))
    }

    fn enter_locks(&mut self) -> Result<(), Fault> {
        if self.in_body {
            return Err(Fault::new(ErrorKind::HeadOrder, 0, "lock"));
        }
        self.has_locks = true;
        self.seen.complete()
    }

    fn unknown<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, Refusal> {
        let (line, unknown) = self.classify(line)?;
        match self.options.level {
            Level::Strict => Err(Fault::new(unknown, 0, "").into()),
            Level::Lenient => Ok(line),
        }
    }

    /// What kind of unknown this is, and what to call it if it is refused.
    fn classify<'a>(&mut self, line: &'a [u8]) -> Result<(Line<'a>, ErrorKind), Refusal> {
        let fault = |kind, at| Err(Refusal::from(Fault::new(kind, at, "")));
        if let Some(at) = scan::bad_byte(line) {
            return fault(ErrorKind::BadByte, at);
        }
        if matches!(line.first(), None | Some(b' ' | b'\t')) {
            return fault(ErrorKind::BadSeparator, 0);
        }
        let text = std::str::from_utf8(line).expect("ASCII");
        if is_head_like(line) {
            if self.in_body {
                return fault(ErrorKind::UnknownHead, 0);
            }
            return Ok((Line::UnknownHead(text), ErrorKind::UnknownHead));
        }
        for (word, kind) in [
            (&b"inotify"[..], Kind::Inotify),
            (b"fanotify", Kind::Fanotify),
        ] {
            match line.strip_prefix(word) {
                Some([b'\t', ..] | [b' ', b' ' | b'\t', ..]) => {
                    return fault(ErrorKind::BadSeparator, word.len());
                }
                Some([] | [b' ']) => return fault(ErrorKind::FieldMissing, word.len()),
                Some([b' ', ..]) => {
                    match kind {
                        Kind::Inotify => self.enter_body(kind)?,
                        Kind::Fanotify => self.enter_marks()?,
                    }
                    return Ok((Line::UnknownMark(text), ErrorKind::UnknownMarkKind));
                }
                Some(_) | None => {}
            }
        }
        self.enter_some_body()?;
        Ok((Line::Unknown(text), ErrorKind::UnknownLine))
    }

    /// Turns a refusal into an error: of all that is wrong with the line, what comes first is a
    /// byte that no line has, then a line that does not end, then what was found.
    #[cold]
    fn refuse(&self, rest: &[u8], refusal: Refusal) -> ParseError {
        let window = &rest[..rest.len().min(MAX_LINE)];
        let end = scan::line_feed(window);
        let line = &window[..end.unwrap_or(window.len())];
        let Refusal { fault, form } = refusal;
        let fault = if let Some(at) = scan::bad_byte(line) {
            Fault::new(ErrorKind::BadByte, at, "")
        } else if end.is_some() {
            form.map_or(fault, |form| explain::explain(line, fault, form))
        } else if window.len() == MAX_LINE {
            Fault::new(ErrorKind::TooLong, 0, "")
        } else {
            Fault::new(ErrorKind::Truncated, window.len(), "")
        };
        self.locate(fault, explain::excerpt(line, fault.at))
    }

    fn locate(&self, fault: Fault, text: Excerpt) -> ParseError {
        ParseError {
            kind: fault.kind,
            line: self.n_lines + 1,
            column: self.taken + fault.at + 1,
            field: fault.field,
            text,
        }
    }
}

/// A line of the body that is about to be decoded.
enum BodyLine<'a> {
    Watch(RawWatch<'a>),
    Mark(RawMark<'a>),
}

impl<'a> BodyLine<'a> {
    #[inline(always)]
    fn decode(self) -> Line<'a> {
        match self {
            Self::Watch(watch) => Line::Watch(watch.decode()),
            Self::Mark(mark) => Line::Mark(mark.decode()),
        }
    }
}

/// A fault, and the form of the line that it was found in.
struct Refusal {
    fault: Fault,
    form: Option<&'static Form>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { fault, form: None }
    }
}

/// Length of the first line, its line feed included, if it ends within the limit.
fn line_length(rest: &[u8]) -> Option<usize> {
    let window = &rest[..rest.len().min(MAX_LINE)];
    scan::line_feed(window).map(|at| at + 1)
}

/// Whether this `lock:` has no content: another line or the end follows the tab.
fn is_hidden_lock(rest: &[u8]) -> bool {
    let follows: [&[u8]; 3] = [b"inotify ", b"fanotify ", b"lock:"];
    rest.strip_prefix(lock::PREFIX)
        .is_some_and(|rest| rest.is_empty() || follows.iter().any(|word| rest.starts_with(word)))
}

/// `key:<TAB>`, with a key of letters, digits, `_` and `-`.
fn is_head_like(line: &[u8]) -> bool {
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let key = line.iter().take_while(|byte| is_key(byte)).count();
    key > 0 && line[key..].starts_with(b":\t")
}
