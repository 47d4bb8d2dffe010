//! The metrics that a PromQL expression names.

use std::collections::BTreeSet;

/// What stands where a metric could, and is none.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "inf", "nan"];

/// What a list of labels follows.
const BEFORE_LABELS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// The names of all metrics in `expression`. Names inside of strings, selectors and lists of labels are none; what an
/// opening parenthesis follows is a function, and what a dollar sign precedes is a variable.
#[must_use]
pub fn metric_names(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    let mut labels_follow = false;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '{' => after(rest, '}'),
            '[' => after(rest, ']'),
            '"' => 1 + after(&rest[1..], '"'),
            '(' if labels_follow => after(rest, ')'),
            '$' => rest[1..]
                .find(|next: char| !is_word(next))
                .map_or(rest.len(), |at| 1 + at),
            _ if is_word(first) => rest.find(|next: char| !is_word(next)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after_token) = rest.split_at(end);
        if is_word(first) {
            let next = after_token.trim_start();
            let next_word = next.split(|next: char| !is_word(next)).next();
            let is_function = next.starts_with('(') || matches!(next_word, Some("by" | "without"));
            labels_follow = BEFORE_LABELS.contains(&token);
            let is_number = first.is_ascii_digit();
            if !is_number && !is_function && !labels_follow && !WORDS.contains(&token) {
                names.insert(token.to_owned());
            }
        } else if !first.is_whitespace() {
            labels_follow = false;
        }
        rest = after_token;
    }
    names
}

fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | ':')
}

/// Where `text` goes on after the first `close`. No string of ours has one inside.
fn after(text: &str, close: char) -> usize {
    text.find(close)
        .map_or(text.len(), |at| at + close.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(expression: &str) -> Vec<String> {
        metric_names(expression).into_iter().collect()
    }

    /// Every metric, and nothing else.
    #[test]
    fn finds_metrics_only() {
        let expression = r#"1000 * sum by (app, le) (rate(a_total{app=~"b",c="d"}[$__rate_interval])) > on (job) group_left e
            unless max without(f) (abs(timestamp(g:h) - i offset 15m)) or absent(up{job="x"}) and 0.5e3 < bool j"#;
        assert_eq!(names(expression), ["a_total", "e", "g:h", "i", "j", "up"]);
        assert_eq!(names(r#"label_replace(a, "b", "c", "d", "e")"#), ["a"]);
        assert_eq!(names("time() - a"), ["a"]);
        assert_eq!(names("time() - a < $__range_s and b"), ["a", "b"]);
    }
}
