//! The structure of a response body, found without understanding, or even validating, what is in it.
//!
//! A JSON parser gives up at the first odd byte, and with it a thousand events that Agora has already deleted. The
//! scanner only follows strings and brackets: where an event ends is known although its text may be neither JSON nor
//! UTF-8, and of a cut body every whole event is found. It holds a depth and no stack, so nesting costs nothing.

use std::borrow::Cow;

use memchr::memchr2;

use crate::fields::text;

/// The longest body without an event that is believed to hold none, in bytes: an empty page of Agora's has less than a
/// hundred, and a list of events that is written in some other way soon has more.
const MAX_EMPTY: usize = 1_024;

/// How many items [`decode`](crate::decode()) makes of `body`: the whole events, odd ones included, and one for what is
/// left unread. Never fails; a cut body has the events before the cut.
#[must_use]
pub fn count(body: &[u8]) -> usize {
    let outline = outline(body);
    outline.count + usize::from(outline.unread.is_some())
}

/// What can be said of a body without looking at its events.
#[derive(Debug)]
pub(crate) struct Outline<'a> {
    pub(crate) end: End,
    /// Whole events, odd ones included.
    pub(crate) count: usize,
    /// Where what could not be read begins, if there is any.
    pub(crate) unread: Option<usize>,
    /// The first and the last of the events, as raw text.
    pub(crate) ends: Option<(&'a [u8], &'a [u8])>,
    /// Whether there is an `events`, be it null.
    pub(crate) has_events: bool,
    pub(crate) request_id: Option<Cow<'a, str>>,
    pub(crate) result: Option<Cow<'a, str>>,
}

pub(crate) fn outline(body: &[u8]) -> Outline<'_> {
    let (mut count, mut ends, mut has_events) = (0, None, false);
    let (mut request_id, mut result) = (None, None);
    let Scanned { end, unread } = scan(body, |part, _| match part {
        Part::Events => has_events = true,
        Part::Event { raw, .. } => {
            count += 1;
            ends = Some((ends.map_or(raw, |(first, _)| first), raw));
        }
        Part::RequestId(raw) => request_id = text(raw),
        Part::Result(raw) => result = text(raw),
    });
    Outline {
        end,
        count,
        unread,
        ends,
        has_events,
        request_id,
        result,
    }
}

/// What a body is made of, with the raw text of JSON values.
pub(crate) enum Part<'a> {
    /// The key `events`, before its elements.
    Events,
    /// An element of `events`, and how deep its brackets go: 1 for an object of scalars.
    Event { raw: &'a [u8], depth: usize },
    /// The value of `request_id`.
    RequestId(&'a [u8]),
    /// The value of `result`.
    Result(&'a [u8]),
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The top-level object closes. What follows it is unread.
    Complete,
    /// The body ends first.
    Cut,
    /// It is not an object of the expected shape.
    Malformed,
}

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) end: End,
    /// Where what was not visited begins, if that may hold events: all of the body where no event was found, else what
    /// follows the last one, or follows the page.
    pub(crate) unread: Option<usize>,
}

/// Calls `visit` with every part and its offset, in the order of the body.
///
/// Keys may come in any order and more than once: the events of two arrays `events` are all visited, since they are
/// all gone from the ring.
///
/// Nothing is dropped on the scanner's word. A body without an event is taken for empty only where it can hold none: it
/// is a short object with a `result` or `events`, and its members are scalars and empty arrays and objects. Beside an
/// `events` that is empty or null an object may have members too, if it holds no list.
pub(crate) fn scan<'a>(body: &'a [u8], visit: impl FnMut(Part<'a>, usize)) -> Scanned {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let mut scanner = Scanner {
        body,
        at: if body.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        },
        depth: 0,
        last_event: None,
        others: Others::default(),
        visit,
    };
    // White space is no content, however long.
    let begin = scanner.peek().map_or(body.len(), |_| scanner.at);
    let end = match scanner.object() {
        Ok(()) => End::Complete,
        Err(end) => end,
    };
    let is_empty = scanner.others.are_empty() && scanner.at - begin <= MAX_EMPTY;
    let from = match (end, scanner.last_event) {
        (End::Complete, Some(_)) => scanner.at,
        (End::Complete, None) if is_empty => scanner.at,
        (_, last_event) => last_event.unwrap_or(0),
    };
    let holds_nothing = |byte: &u8| {
        byte.is_ascii_whitespace() || matches!(byte, 0 | b',' | b':' | b'[' | b']' | b'{' | b'}')
    };
    let rest = &body[from..];
    let unread = if rest.iter().all(holds_nothing) {
        None
    } else if from == 0 {
        Some(0)
    } else {
        let separates = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | b',');
        let skipped = rest.iter().take_while(|byte| separates(byte)).count();
        Some(from + skipped)
    };
    Scanned { end, unread }
}

/// What the members of a page beside its events may hold.
#[derive(Debug, Default)]
struct Others {
    has_events: bool,
    has_result: bool,
    /// An array or an object that is not empty.
    has_content: bool,
    /// An array that is not empty, at any depth.
    has_list: bool,
}

impl Others {
    fn see(&mut self, value: &[u8]) {
        let [b'[' | b'{', inside @ .., _] = value else {
            return;
        };
        self.has_content |= !inside.iter().all(u8::is_ascii_whitespace);
        let lists = |(at, byte): (usize, &u8)| {
            let mut rest = value[at + 1..].iter();
            *byte == b'[' && rest.find(|byte| !byte.is_ascii_whitespace()) != Some(&b']')
        };
        // A bracket in a string counts as well: then a page that holds nothing is kept once too often.
        self.has_list |= self.has_content && value.iter().enumerate().any(lists);
    }

    fn are_empty(&self) -> bool {
        match self.has_events {
            true => !self.has_list,
            false => self.has_result && !self.has_content,
        }
    }
}

struct Scanner<'a, V> {
    body: &'a [u8],
    at: usize,
    /// Of the last value.
    depth: usize,
    /// Where the last event ends.
    last_event: Option<usize>,
    others: Others,
    visit: V,
}

impl<'a, V: FnMut(Part<'a>, usize)> Scanner<'a, V> {
    /// The top-level object; `at` is behind it afterwards.
    fn object(&mut self) -> Result<(), End> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(End::Malformed);
            }
            let (_, key) = self.value()?;
            self.expect(b':')?;
            self.member(key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(End::Malformed),
            }
        }
    }

    fn member(&mut self, key: &[u8]) -> Result<(), End> {
        let key = text(key);
        if key.as_deref() == Some("events") {
            (self.visit)(Part::Events, self.at);
            self.others.has_events = true;
            if self.peek()? == b'[' {
                return self.events();
            }
        }
        let (at, value) = self.value()?;
        match key.as_deref() {
            // A missing or null `events` is how an empty ring may look; anything else is an API we do not know.
            Some("events") if value != b"null" => return Err(End::Malformed),
            Some("request_id") => (self.visit)(Part::RequestId(value), at),
            Some("result") => {
                self.others.has_result = text(value).is_some();
                (self.visit)(Part::Result(value), at);
            }
            _ => {}
        }
        self.others.see(value);
        Ok(())
    }

    fn events(&mut self) -> Result<(), End> {
        self.expect(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let (at, raw) = self.value()?;
            let depth = self.depth;
            self.last_event = Some(self.at);
            (self.visit)(Part::Event { raw, depth }, at);
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(End::Malformed),
            }
        }
    }

    /// Passes over one value of any kind.
    fn value(&mut self) -> Result<(usize, &'a [u8]), End> {
        let first = self.peek()?;
        let start = self.at;
        self.depth = 0;
        match first {
            b'"' => self.string()?,
            b'{' | b'[' => self.nested()?,
            _ => self.scalar()?,
        }
        Ok((start, &self.body[start..self.at]))
    }

    /// Passes over a string; `at` is at its opening quote.
    fn string(&mut self) -> Result<(), End> {
        self.at += 1;
        loop {
            let rest = self.body.get(self.at..).ok_or(End::Cut)?;
            self.at += memchr2(b'"', b'\\', rest).ok_or(End::Cut)?;
            if self.body[self.at] == b'"' {
                self.at += 1;
                return Ok(());
            }
            // What is escaped ends nothing.
            self.at += 2;
        }
    }

    /// Passes over an object or an array; `at` is at its opening bracket. A bracket that is closed by the wrong kind
    /// ends there all the same, so that the damage stays in one event.
    fn nested(&mut self) -> Result<(), End> {
        let mut depth = 0usize;
        loop {
            match self.body.get(self.at) {
                None => return Err(End::Cut),
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.depth = self.depth.max(depth);
                }
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Passes over a number, `true`, `false`, `null` or any other word. At the end of the body it may go on, so it is
    /// not whole.
    fn scalar(&mut self) -> Result<(), End> {
        let rest = &self.body[self.at..];
        let ends =
            |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':') || byte.is_ascii_whitespace();
        match rest.iter().position(ends) {
            None => Err(End::Cut),
            Some(0) => Err(End::Malformed),
            Some(length) => {
                self.at += length;
                Ok(())
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), End> {
        if self.peek()? != byte {
            return Err(End::Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, End> {
        while let Some(byte) = self.body.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(End::Cut)
    }
}

#[cfg(test)]
mod tests;
