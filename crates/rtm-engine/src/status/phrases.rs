//! Names, times and numbers as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// With a capital letter, as a sentence begins.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Up to three of them.
pub(crate) fn names(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match &names[..] {
        [most @ .., last] if names.len() <= 3 && !most.is_empty() => {
            format!("{} and {last}", most.join(", "))
        }
        [first, second, _, rest @ ..] => format!("{first}, {second} and {} more", rest.len() + 1),
        names => names.concat(),
    }
}

/// "since 12:03:04 UTC (2 min)".
pub(super) fn since(at: Timestamp, seconds: f64) -> String {
    let ago = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let then = at.checked_sub(ago).unwrap_or(at);
    let is_today = seconds < 12.0 * 3600.0;
    let format = ["%Y-%m-%d %H:%M", "%H:%M:%S"][usize::from(is_today)];
    let then = then.strftime(format);
    format!("since {then} UTC ({})", duration(seconds))
}

/// As people say it.
pub fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => format!("{} h", whole / 3600),
        _ => format!("{} days", grouped(whole / 86_400)),
    }
}

pub(super) fn events(count: u64) -> String {
    match count {
        1 => "1 event".to_owned(),
        count => format!("{} events", grouped(count)),
    }
}

/// The verb of one, or that of several.
pub(super) fn verb(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
