use super::*;

/// Holds: numbers are read as people write them.
#[test]
fn numbers() {
    let all = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
    assert_eq!(all, ["0", "999", "1,000", "12,345", "1,234,567"]);
    let all = [0.4, 119.0, 120.0, 7200.0, 172_800.0].map(duration);
    assert_eq!(all, ["0 s", "119 s", "2 min", "2 h", "2 days"]);
}
