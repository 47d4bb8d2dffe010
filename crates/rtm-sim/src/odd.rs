//! Events that no document promises, and that a bridge meets one day.

use fastrand::Rng;

use crate::ledger::Stream;

/// Ids, as JSON text, that mean something to a broker, a terminal, a log or a parser.
const HOSTILE_IDS: &[&str] = &[
    r#""""#,
    r#"" ""#,
    r#"".""#,
    r#""*""#,
    r#"">""#,
    r#""a.b.*.>""#,
    r#""$JS.API.>""#,
    r#""..\/..\/etc\/passwd""#,
    r#""\r\n""#,
    r#""x\r\nrtm-region: forged""#,
    r#""\u0000""#,
    r#""nul\u0000inside""#,
    r#""\u001b[2J\u0007""#,
    r#""\u202edrowssap""#,
    "\"\u{202e}drowssap\u{2066}x\u{2069}\"",
    "\"\u{feff}e\u{301}\u{1f4a5}\"",
    r#""\"quoted\" back\\slash""#,
    r#""{app} ${HOME} %s {{x}}""#,
    r#""\u0041\u00e9 escaped for no reason""#,
    // Half of a surrogate pair is JSON by its grammar and no text.
    r#""\ud800""#,
];

/// Times, as JSON text, that are no sensible number of milliseconds.
const ODD_TIMES: &[&str] = &[
    "-1",
    "0",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551616",
    "253402300800000",
    "1578027418981.5",
    "1.578027418981e12",
    "1e400",
    "null",
    r#""1578027418981""#,
];

/// Events that are no events.
const NOT_OBJECTS: &[&str] = &[
    "42",
    "-0.5",
    "null",
    "true",
    r#""text, with ]}""#,
    "[]",
    "[{}]",
    "{}",
];

/// How deep a nested field goes: a parser that stops at 128 levels, as is usual, still takes it inside an envelope.
const DEPTH: usize = 64;

/// An odd event of `stream`, of which `user` and `channel` need no escape.
pub(crate) fn event(rng: &mut Rng, stream: Stream, user: &str, channel: &str, ms: &str) -> String {
    let mut ids = vec![("user_id", quoted(user))];
    if stream == Stream::Channel {
        ids.insert(0, ("group_id", quoted(channel)));
    }
    let kind = match stream {
        Stream::User => r#""Login""#,
        Stream::Channel => r#""Join""#,
    };
    let mut fields = ids;
    fields.push(("type", kind.to_owned()));
    fields.push(("ms", ms.to_owned()));
    let last = fields.len() - 1;
    match rng.u8(..14) {
        0 => fields[0].1 = rng.u32(..).to_string(),
        1 => fields[0].1 = "12345678901234567890123".to_owned(),
        2 => fields[last].0 = "ts",
        3 if stream == Stream::Channel => fields[0].0 = "channel_id",
        4 => fields[last - 1].1 = r#""Levitate""#.to_owned(),
        5 => {
            fields.remove(last);
        }
        6 | 7 => fields[last].1 = pick(rng, ODD_TIMES).to_owned(),
        8 | 9 => {
            let id = rng.usize(..last - 1);
            fields[id].1 = pick(rng, HOSTILE_IDS).to_owned();
        }
        10 => {
            // An id that is no text, or none at all: a reject, whatever else the event says.
            if rng.bool() {
                fields[0].1 = pick(rng, &["null", "{}", "[1]", "true"]).to_owned();
            } else {
                fields.remove(0);
            }
        }
        11 => return pick(rng, NOT_OBJECTS).to_owned(),
        12 => {
            let twice = fields[0].clone();
            fields.push(twice);
        }
        _ => {
            fields.push((
                "client",
                r#"{"os":"plan9","tags":[1,null,"]}"]}"#.to_owned(),
            ));
            fields.push(("deep", "[".repeat(DEPTH) + &"]".repeat(DEPTH)));
        }
    }
    written(rng, &fields)
}

/// The fields as an object, at times in another order or with white space that must be kept.
fn written(rng: &mut Rng, fields: &[(&str, String)]) -> String {
    let spaced = rng.u8(..4) == 0;
    let (colon, comma) = if spaced {
        (" :\t", " ,\n ")
    } else {
        (":", ",")
    };
    let turn = if rng.u8(..4) == 0 {
        rng.usize(..fields.len())
    } else {
        0
    };
    let mut text = String::from("{");
    for (index, (name, value)) in fields
        .iter()
        .cycle()
        .skip(turn)
        .take(fields.len())
        .enumerate()
    {
        if index > 0 {
            text.push_str(comma);
        }
        text.push('"');
        text.push_str(name);
        text.push('"');
        text.push_str(colon);
        text.push_str(value);
    }
    text.push('}');
    text
}

fn quoted(plain: &str) -> String {
    format!("\"{plain}\"")
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    /// Odd as they are, they are JSON by its grammar, so that they stand in a page that is.
    #[test]
    fn odd_events_are_json() {
        let mut rng = Rng::with_seed(5);
        for round in 0..5_000 {
            let stream = Stream::ALL[round % 2];
            let text = event(&mut rng, stream, "u", "c", "1578027418981");
            let raw: &RawValue =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(raw.get(), text);
        }
    }

    /// Every entry of the lists comes up, and so does every kind that a bridge has to tell apart.
    #[test]
    fn all_kinds_come_up() {
        let mut rng = Rng::with_seed(6);
        let made: Vec<String> = (0..20_000)
            .map(|round| event(&mut rng, Stream::ALL[round % 2], "u", "c", "1578027418981"))
            .collect();
        let aliases = [
            r#""ts":15"#,
            r#""channel_id":"c""#,
            r#""deep":"#,
            r#""Levitate""#,
        ];
        for part in HOSTILE_IDS
            .iter()
            .chain(ODD_TIMES)
            .chain(NOT_OBJECTS)
            .chain(&aliases)
        {
            assert!(
                made.iter().any(|text| text.contains(part)),
                "{part} never came"
            );
        }
    }
}
