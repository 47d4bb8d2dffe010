use serde::Deserialize;

#[derive(Deserialize, Debug)]
struct Units {
    #[serde(deserialize_with = "super::duration::deserialize")]
    wait: std::time::Duration,
    #[serde(deserialize_with = "super::size::deserialize")]
    room: u64,
    #[serde(deserialize_with = "super::text")]
    id: String,
    #[serde(default, deserialize_with = "super::number")]
    limit: u32,
}

fn parse(toml: &str) -> Result<Units, figment::Error> {
    use figment::providers::Format;
    figment::Figment::from(figment::providers::Toml::string(toml)).extract()
}

/// What comes of a value that stands so in TOML.
fn wait(written: &str) -> Option<u128> {
    let parsed = parse(&format!("wait = {written}\nroom = 1\nid = \"a\""));
    parsed.ok().map(|units| units.wait.as_millis())
}

fn room(written: &str) -> Option<u64> {
    let parsed = parse(&format!("wait = \"1s\"\nroom = {written}\nid = \"a\""));
    parsed.ok().map(|units| units.room)
}

fn id(written: &str) -> Option<String> {
    let parsed = parse(&format!("wait = \"1s\"\nroom = 1\nid = {written}"));
    parsed.ok().map(|units| units.id)
}

/// Holds: a duration is a friendly or an ISO 8601 one, has a unit, and is not negative.
#[test]
fn durations_are_read_as_people_write_them() {
    for (text, milliseconds) in [
        ("10s", 10_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("25h", 90_000_000),
        ("250ms", 250),
        ("1.5s", 1_500),
        ("0s", 0),
        ("-0s", 0),
        ("+5s", 5_000),
        ("5s ", 5_000),
        ("1m 30s", 90_000),
        ("1m30s", 90_000),
        ("1h, 30m", 5_400_000),
        ("10 seconds", 10_000),
        ("10 s", 10_000),
        ("1500us", 1),
        ("01:00:00", 3_600_000),
        ("PT30S", 30_000),
        ("pt1m", 60_000),
    ] {
        assert_eq!(wait(&format!("{text:?}")), Some(milliseconds), "{text}");
    }
    for written in [
        "30",
        "0",
        "-5",
        "1.5",
        "true",
        "[]",
        "{}",
        "\"30\"",
        "\"-5s\"",
        "\"5s ago\"",
        "\"1d\"",
        "\"1w\"",
        "\"1y\"",
        "\"s\"",
        "\"soon\"",
        "\"\"",
        "\" 5s\"",
        "\"5s 1m\"",
        "\"P1D\"",
    ] {
        let error = parse(&format!("wait = {written}\nroom = 1\nid = \"a\"")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("a duration with a unit, such as"),
            "{written}: {error}"
        );
    }
}

/// Holds: a size is a number of bytes, or has a unit, a decimal or a binary one.
#[test]
fn sizes_are_read_as_people_write_them() {
    for (written, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("\"4096\"", 4096),
        ("\"4GiB\"", 4 << 30),
        ("\"512MiB\"", 512 << 20),
        ("\"512MB\"", 512_000_000),
        ("\"1.5KiB\"", 1536),
        ("\"4 gib\"", 4 << 30),
        ("\"4G\"", 4_000_000_000),
        ("\"4k\"", 4_000),
        ("\"7B\"", 7),
        ("9223372036854775807", i64::MAX as u64),
        ("\"18446744073709551615\"", u64::MAX),
    ] {
        assert_eq!(room(written), Some(bytes), "{written}");
    }
    for written in [
        "-1",
        "1.5",
        "true",
        "[]",
        "{}",
        "\"-1\"",
        "\"many\"",
        "\"\"",
        "\"GiB\"",
        "\"4 apples\"",
    ] {
        let error = parse(&format!("wait = \"1s\"\nroom = {written}\nid = \"a\"")).unwrap_err();
        assert!(
            error.to_string().contains("a size, such as"),
            "{written}: {error}"
        );
    }
}

/// Holds: a number may be text, is whole and in range.
#[test]
fn numbers_may_be_text() {
    let limit = |written: &str| {
        parse(&format!(
            "wait = \"1s\"\nroom = 1\nid = \"a\"\nlimit = {written}"
        ))
    };
    for (written, number) in [
        ("0", 0),
        ("10", 10),
        ("\"10\"", 10),
        ("\" 10\"", 10),
        ("\"007\"", 7),
        ("4294967295", u32::MAX),
    ] {
        assert_eq!(limit(written).unwrap().limit, number, "{written}");
    }
    for written in [
        "-1",
        "1.5",
        "true",
        "[]",
        "{}",
        "4294967296",
        "\"-1\"",
        "\"1.5\"",
        "\"1e3\"",
        "\"10s\"",
        "\"\"",
    ] {
        let error = limit(written).unwrap_err().to_string();
        assert!(error.contains("a whole number"), "{written}: {error}");
    }
}

/// Holds: text that looks like a whole number is text, and nothing else is.
#[test]
fn text_may_look_like_a_number() {
    for (written, text) in [
        ("12345", "12345"),
        ("-5", "-5"),
        ("\"007\"", "007"),
        ("\"\"", ""),
        ("\"true\"", "true"),
    ] {
        assert_eq!(id(written).as_deref(), Some(text), "{written}");
    }
    for written in ["1.5", "true", "[]", "{}"] {
        assert_eq!(id(written), None, "{written}");
    }
}
