use super::*;

fn series(family: &Family<IntCounter>) -> Vec<String> {
    let keys = lock(&family.series);
    keys.keys().map(|values| values.join(" ")).collect()
}

/// Holds: two lists of values are two series, also where they read alike one after the other.
#[test]
fn values_do_not_run_together() {
    let family: Family<IntCounter> = Family::new("things_total", "Things", &["app", "sink"]);
    family.of(&["a", "bc"]).inc();
    family.of(&["ab", "c"]).inc_by(2);
    assert_eq!(family.of(&["a", "bc"]).get(), 1);
    assert_eq!(family.of(&["ab", "c"]).get(), 2);
}

/// Holds: what comes gets every series of a family with its labels, and of no other; what goes leaves none behind, and
/// takes no other's.
#[test]
fn series_come_and_go_by_their_labels() {
    let family = Family::new("things_total", "Things", &["app", "sink", "reason"]);
    let family = family.with_values(&["x", "y"]);
    family.add(&[("app", "a")]);
    family.add(&[("sink", "k")]);
    family.add(&[("app", "a"), ("region", "k")]);
    assert_eq!(series(&family), [""; 0]);
    for (app, sink) in [("a", "k"), ("a", "n"), ("k", "a")] {
        family.add(&[("app", app), ("sink", sink)]);
    }
    let all = ["a k x", "a k y", "a n x", "a n y", "k a x", "k a y"];
    assert_eq!(series(&family), all);
    family.remove(&[("app", "a"), ("region", "k")]);
    family.remove(&[("sink", "x")]);
    assert_eq!(series(&family), all);
    family.remove(&[("app", "a"), ("sink", "n")]);
    assert_eq!(series(&family), ["a k x", "a k y", "k a x", "k a y"]);
    family.remove(&[("app", "a")]);
    assert_eq!(series(&family), ["k a x", "k a y"]);
}
