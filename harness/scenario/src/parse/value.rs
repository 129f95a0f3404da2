//! The words of a line: names, numbers, strings and what is made of them, with no meaning yet.

use std::ops::Range;

use crate::limits::MAX_DEPTH;
use crate::problem::{Problem, ProblemKind};

/// A place in a line. Offsets are those of the whole text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    pub(super) at: usize,
    end: usize,
}

/// An argument before its kind is known.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) span: Range<usize>,
    pub(super) form: Form,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    Bytes(Vec<u8>),
    /// One word or several, joined by `|`.
    Words(Vec<Word>),
    /// `makedev(1, 3)`.
    Call(Word, Vec<Value>),
    /// `{events=EPOLLIN, data=7}`.
    Struct(Vec<(Word, Value)>),
    /// `[a, b]`.
    List(Vec<Value>),
}

/// A name or a number.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) span: Range<usize>,
    pub(super) text: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, line: Range<usize>) -> Self {
        let mut cursor = Self {
            text,
            at: line.start,
            end: line.end,
        };
        cursor.skip_space();
        cursor
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    /// Eats `token` and the space behind it.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.skip_space();
        }
        found
    }

    pub(super) fn expect(&mut self, token: &str, what: &'static str) -> Result<(), Problem> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.expected(what))
        }
    }

    /// The problem that `what` should stand here.
    pub(super) fn expected(&self, what: &'static str) -> Problem {
        ProblemKind::Expected(what).at(self.here())
    }

    /// The character here, or the empty span at the end of the line.
    pub(super) fn here(&self) -> Range<usize> {
        let width = self.rest().chars().next().map_or(0, char::len_utf8);
        self.at..self.at + width
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// A run of letters, digits and `_`, with a sign before it; none if there is none here.
    pub(super) fn word(&mut self) -> Option<Word> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['-', '+']));
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = rest[sign..]
            .find(|c| !inside(c))
            .map_or(rest.len(), |found| sign + found);
        if length == sign {
            return None;
        }
        let span = self.at..self.at + length;
        self.at = span.end;
        self.skip_space();
        let text = rest[..length].to_owned();
        Some(Word { span, text })
    }

    /// Values up to a closing token, which is not eaten.
    pub(super) fn values(&mut self, close: &[&str]) -> Result<Vec<Value>, Problem> {
        let mut values = Vec::new();
        let closes = |cursor: &Self| close.iter().any(|token| cursor.rest().starts_with(token));
        if closes(self) {
            return Ok(values);
        }
        loop {
            values.push(self.value(0)?);
            if !self.eat(",") {
                return Ok(values);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(ProblemKind::TooDeep.at(self.here()));
        }
        let start = self.at;
        let form = match self.rest().as_bytes().first() {
            Some(b'"') => Form::Bytes(self.string()?),
            Some(b'{') => Form::Struct(self.fields(depth)?),
            Some(b'[') => Form::List(self.list(depth)?),
            _ => self.words(depth)?,
        };
        let end = start
            + self.text[start..self.at]
                .trim_end_matches([' ', '\t'])
                .len();
        Ok(Value {
            span: start..end,
            form,
        })
    }

    fn words(&mut self, depth: usize) -> Result<Form, Problem> {
        let first = self.word().ok_or_else(|| self.expected("an argument"))?;
        if self.eat("(") {
            let mut args = Vec::new();
            while !self.eat(")") {
                args.push(self.value(depth + 1)?);
                if !self.eat(",") {
                    self.expect(")", "`)`")?;
                    break;
                }
            }
            return Ok(Form::Call(first, args));
        }
        let mut words = vec![first];
        while self.eat("|") {
            words.push(self.word().ok_or_else(|| self.expected("a flag"))?);
        }
        Ok(Form::Words(words))
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(Word, Value)>, Problem> {
        self.eat("{");
        let mut fields = Vec::new();
        loop {
            let name = self.word().ok_or_else(|| self.expected("a field"))?;
            self.expect("=", "`=`")?;
            fields.push((name, self.value(depth + 1)?));
            if !self.eat(",") {
                self.expect("}", "`,` or `}`")?;
                return Ok(fields);
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>, Problem> {
        self.eat("[");
        let mut values = Vec::new();
        loop {
            values.push(self.value(depth + 1)?);
            if !self.eat(",") {
                self.expect("]", "`,` or `]`")?;
                return Ok(values);
            }
        }
    }

    /// A quoted string, with its escapes resolved.
    pub(super) fn string(&mut self) -> Result<Vec<u8>, Problem> {
        let start = self.at;
        if !self.rest().starts_with('"') {
            return Err(self.expected("a string"));
        }
        let bytes = self.rest().as_bytes();
        let mut content = Vec::new();
        let mut at = 1;
        loop {
            match bytes.get(at) {
                None => return Err(ProblemKind::UnclosedString.at(start..self.end)),
                Some(b'"') => break,
                Some(b'\\') => {
                    let (byte, length) = escape(&bytes[at + 1..]).ok_or_else(|| {
                        let wrong = self.text[start + at + 1..self.end].chars().next();
                        let end = start + at + 1 + wrong.map_or(0, char::len_utf8);
                        ProblemKind::BadEscape.at(start + at..end)
                    })?;
                    content.push(byte);
                    at += 1 + length;
                }
                Some(byte) => {
                    content.push(*byte);
                    at += 1;
                }
            }
        }
        self.at = start + at + 1;
        if self.rest().starts_with("...") {
            return Err(ProblemKind::CutString.at(self.at..self.at + 3));
        }
        self.skip_space();
        Ok(content)
    }
}

/// The byte that an escape stands for, and the escape's length without its backslash.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    let byte = match rest.first()? {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'"' => b'"',
        b'\\' => b'\\',
        b'x' => {
            let digits = std::str::from_utf8(rest.get(1..3)?).ok()?;
            let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            return hex
                .then(|| u8::from_str_radix(digits, 16).ok())?
                .map(|byte| (byte, 3));
        }
        b'0'..=b'7' => {
            let octal = |byte: &&u8| (b'0'..=b'7').contains(*byte);
            let length = rest.iter().take(3).take_while(octal).count();
            let digits = std::str::from_utf8(&rest[..length]).ok()?;
            return u8::from_str_radix(digits, 8)
                .ok()
                .map(|byte| (byte, length));
        }
        _ => return None,
    };
    Some((byte, 1))
}

impl Word {
    /// The number that the word is: decimal, `0x` hexadecimal or octal with a leading zero.
    pub(super) fn number(&self) -> Option<i128> {
        let (sign, digits) = match self.text.as_bytes().first()? {
            b'-' => (-1, &self.text[1..]),
            b'+' => (1, &self.text[1..]),
            _ => (1, self.text.as_str()),
        };
        let (digits, radix) = match digits {
            "0" => ("0", 10),
            _ if digits.starts_with("0x") => (&digits[2..], 16),
            _ if digits.starts_with('0') => (&digits[1..], 8),
            _ => (digits, 10),
        };
        if digits.starts_with(['+', '-']) {
            return None;
        }
        let number = u64::from_str_radix(digits, radix).ok()?;
        Some(sign * i128::from(number))
    }

    pub(super) fn is_number(&self) -> bool {
        let digits = self.text.trim_start_matches(['-', '+']);
        digits.starts_with(|c: char| c.is_ascii_digit())
    }
}
