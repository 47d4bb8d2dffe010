//! Headers: what JetStream reads, and the record's own, escaped.

use async_nats::HeaderMap;
use async_nats::header::{
    HeaderName, HeaderValue, NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID,
    NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM,
    NATS_MESSAGE_ID, NATS_ROLLUP,
};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rtm_sink::{Headers, Record, RecordId};

/// Headers with this prefix are instructions to the server (purge, expire, expect), never a record's own.
const RESERVED: &str = "nats-";

/// The header that tells consumers of all subjects that a message is progress, and no record.
pub const PROGRESS: &str = "Rtm-Progress";

/// Makes the headers of records. Holds what all have in common.
#[derive(Debug)]
pub(crate) struct HeaderWriter {
    /// None where records demand no JetStream stream.
    jetstream: Option<HeaderValue>,
    /// None where records have no id for the server's deduplication.
    id_suffix: Option<String>,
    scratch: String,
}

impl HeaderWriter {
    /// `jetstream` was checked when the options were: it holds neither white space nor control characters.
    pub(crate) fn new(jetstream: Option<&str>, id_suffix: Option<&str>) -> HeaderWriter {
        let escaped = id_suffix.map(|suffix| {
            let mut escaped = String::new();
            escape_value(&mut escaped, suffix.as_bytes());
            escaped
        });
        HeaderWriter {
            id_suffix: escaped,
            jetstream: jetstream.map(|name| name.parse().unwrap_or_default()),
            scratch: String::with_capacity(64),
        }
    }

    /// `Nats-Msg-Id`, by which the server recognises a record published twice; `Nats-Expected-Stream`, unless that
    /// is left out: without it a subject that is bound elsewhere is stored elsewhere; its place in an atomic batch, if it is
    /// in one; and the record's own.
    ///
    /// # Errors
    ///
    /// The name of a header that cannot be sent.
    pub(crate) fn headers_of(
        &mut self,
        record: &Record,
        place: Option<&Place>,
    ) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        // A progress follows another, and is no record.
        let is_record = place.is_none_or(|place| place.follows.is_none());
        if let Some(suffix) = self.id_suffix.as_ref().filter(|_| is_record) {
            self.scratch.clear();
            push_id(&mut self.scratch, record.id);
            self.scratch.push_str(suffix);
            headers.insert(NATS_MESSAGE_ID, self.value());
        }
        if let Some(jetstream) = &self.jetstream {
            headers.insert(NATS_EXPECTED_STREAM, jetstream.clone());
        }
        if let Some(place) = place {
            headers.insert(NATS_BATCH_ID, place.batch.clone());
            headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(place.sequence));
            if let Some(sequence) = place.follows {
                let sequence = HeaderValue::from(sequence);
                headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence);
            }
            if place.rolls_up {
                headers.insert(NATS_ROLLUP, "sub");
            }
            if place.commits {
                headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            }
        }
        self.append(&mut headers, &record.headers)?;
        Ok(headers)
    }

    fn append(&mut self, headers: &mut HeaderMap, own: &Headers) -> Result<(), String> {
        for (name, value) in own {
            let parsed = parse_name(name).ok_or_else(|| name.escape_debug().to_string())?;
            self.scratch.clear();
            escape_value(&mut self.scratch, value);
            headers.append(parsed, self.value());
        }
        Ok(())
    }

    /// The scratch text, which is escaped: `from_str` cannot fail on it, where `From<&str>` would panic if it could.
    fn value(&self) -> HeaderValue {
        self.scratch.parse().unwrap_or_default()
    }
}

/// A record's place in its atomic batch.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) batch: HeaderValue,
    /// From 1.
    pub(crate) sequence: usize,
    /// The record is the last, and commits the batch.
    pub(crate) commits: bool,
    /// The record has a reply subject.
    pub(crate) answered: bool,
    /// The sequence of the message of its subject that it is to follow.
    pub(crate) follows: Option<u64>,
    /// It takes the place of those of its subject.
    pub(crate) rolls_up: bool,
}

/// The id as it displays itself, without what formatting costs.
fn push_id(text: &mut String, id: RecordId) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for shift in (0..16).rev() {
        text.push(char::from(DIGITS[(id.epoch >> (4 * shift)) as usize & 15]));
    }
    text.push('.');
    push_decimal(text, id.position);
    text.push('.');
    push_decimal(text, id.offset.into());
}

pub(crate) fn push_decimal(text: &mut String, number: u64) {
    let mut divisor = 10_u64.pow(number.checked_ilog10().unwrap_or(0));
    while divisor > 0 {
        let digit = (number / divisor % 10) as u8;
        text.push(char::from(b'0' + digit));
        divisor /= 10;
    }
}

/// The name of a record's own header, if it can be sent.
pub(crate) fn parse_name(name: &str) -> Option<HeaderName> {
    let start = name.as_bytes().get(..RESERVED.len());
    let reserved = start.is_some_and(|start| start.eq_ignore_ascii_case(RESERVED.as_bytes()));
    if reserved || name.is_empty() {
        return None;
    }
    name.parse().ok()
}

/// Percent-encodes what could end a header, fake another or deceive a reader.
///
/// Printable ASCII stays, save `%` and a space at either end (which clients trim); every other byte becomes `%HH`.
/// Percent-decoding gives back the bytes.
fn escape_value(escaped: &mut String, value: &[u8]) {
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
    const ENDS: &AsciiSet = &ESCAPED.add(b' ');
    let (first, rest) = value.split_at(value.len().min(1));
    let (middle, last) = rest.split_at(rest.len().saturating_sub(1));
    escaped.extend(percent_encode(first, ENDS));
    escaped.extend(percent_encode(middle, ESCAPED));
    escaped.extend(percent_encode(last, ENDS));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rtm_sink::{Timestamp, Topic};

    use super::*;

    fn record(headers: Headers) -> Record {
        Record {
            id: RecordId {
                epoch: 0xab,
                position: 7,
                offset: 42,
            },
            topic: Topic::from("rtm.a"),
            key: None,
            timestamp: Timestamp(0),
            headers,
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn escaped(value: &[u8]) -> String {
        let mut text = String::new();
        escape_value(&mut text, value);
        text
    }

    /// Holds: the id and the expectation are on every record.
    #[test]
    fn every_record_names_its_id_and_its_jetstream() {
        let headers = HeaderWriter::new(Some("RTM"), Some(""))
            .headers_of(&record(Vec::new()), None)
            .unwrap();
        assert_eq!(
            headers.get(NATS_MESSAGE_ID).unwrap().as_str(),
            "00000000000000ab.7.42"
        );
        assert_eq!(headers.get(NATS_EXPECTED_STREAM).unwrap().as_str(), "RTM");
        assert_eq!(headers.len(), 2);
        let without = HeaderWriter::new(None, Some("")).headers_of(&record(Vec::new()), None);
        assert!(without.unwrap().get(NATS_EXPECTED_STREAM).is_none());
    }

    /// Holds: a name that is an instruction to the server, or no name at all, is refused.
    #[test]
    fn names_that_mean_something_to_the_server_are_refused() {
        let mut writer = HeaderWriter::new(Some("RTM"), Some(""));
        for name in ["Nats-Rollup", "nats-ttl", "a:b", "a b", "a\r\nX", ""] {
            let own = vec![(name.to_owned().into(), Bytes::from_static(b"all"))];
            assert!(writer.headers_of(&record(own), None).is_err(), "{name:?}");
        }
        let own = vec![("rtm-region".into(), Bytes::from_static(b"eu-west-1"))];
        let headers = writer.headers_of(&record(own), None).unwrap();
        assert_eq!(headers.get("rtm-region").unwrap().as_str(), "eu-west-1");
    }

    #[test]
    fn values_have_the_documented_form() {
        assert_eq!(escaped(b"a b ~"), "a b ~");
        assert_eq!(escaped(b" a "), "%20a%20");
        assert_eq!(escaped(b"50%\r\nX: 1\0\xff"), "50%25%0D%0AX: 1%00%FF");
        assert_eq!(escaped("é\u{202e}".as_bytes()), "%C3%A9%E2%80%AE");
        assert_eq!(escaped(b""), "");
    }

    proptest! {
        /// Holds: the id is written as it displays itself.
        #[test]
        fn ids_are_written_as_displayed(epoch: u64, position: u64, offset: u32) {
            for (epoch, position, offset) in [(epoch, position, offset), (epoch >> 32, position >> 48, offset >> 28)] {
                let id = RecordId { epoch, position, offset };
                let mut text = String::new();
                push_id(&mut text, id);
                prop_assert_eq!(text, id.to_string());
            }
        }

        /// Holds: any bytes make a value that the library takes (it panics on CR and LF) and that decodes to them.
        #[test]
        fn any_bytes_make_a_value(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let own = vec![("rtm-x".into(), Bytes::from(value.clone()))];
            let headers = HeaderWriter::new(Some("RTM"), Some("")).headers_of(&record(own), None).unwrap();
            let text = headers.get("rtm-x").unwrap().as_str();
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(text, text.trim());
            let mut decoded = Vec::new();
            let mut rest = text.bytes();
            while let Some(byte) = rest.next() {
                decoded.push(if byte == b'%' {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                } else {
                    byte
                });
            }
            prop_assert_eq!(decoded, value);
        }
    }
}
