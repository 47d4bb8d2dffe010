//! The patches of the planted bugs are kept up. `cargo run -p rtm-tests --bin planted` runs them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use rtm_tests::planted;

/// Holds: the series applies to the tree as it is.
#[test]
fn the_series_applies() {
    let dir = tempfile::tempdir().unwrap();
    planted::apply(&dir.path().join("index")).unwrap();
}

/// Holds: each patch has its switch and its head, and the tests that the head names are there.
#[test]
fn the_tests_of_each_patch_are_there() {
    for bug in planted::all().unwrap() {
        let dir = match bug.package.as_str() {
            "rtm-tests" => "tests".to_owned(),
            package => format!("crates/{package}"),
        };
        let test = bug.tests.rsplit("::").next().unwrap();
        let found = Command::new("git")
            .args(["grep", "--quiet", &format!("fn {test}"), "--", &dir])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .status();
        assert!(
            found.unwrap().success(),
            "{}: {test} is not in {dir}",
            bug.name
        );
    }
}
