//! The planted bugs: the checks are checked.
//!
//! `tests/planted` holds a series of patches. `0000-switch.patch` adds a crate that asks whether the bug of a name is to
//! be there, and each of the others asks it at one place that a promise hangs on. The head of a patch names the invariant
//! that its bug breaks, and the tests that must fail with it: a package, and a filter as for `cargo test`.
//!
//! `cargo run -p rtm-tests --bin planted` applies the series to a copy of the tree, builds that once, and runs the tests of
//! each bug without it and with it.
//!
//! A patch that does not apply any more is made again in a clean tree; the patches do not need each other's lines:
//!
//! 1. `git apply --3way tests/planted/NAME.patch`, and resolve the conflict, or plant the switch anew.
//! 2. Put `git diff -U2 HEAD -- crates` below the head of the patch.
//! 3. `git restore --staged --worktree crates`, and `cargo run -p rtm-tests --bin planted NAME`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binary::workspace;

/// One planted bug.
#[derive(Debug)]
pub struct Planted {
    /// That of its patch and of its switch.
    pub name: String,
    /// The invariant that it breaks.
    pub breaks: String,
    /// The package whose tests are run.
    pub package: String,
    /// Which of its tests: a filter as for `cargo test`, which must match at least one.
    pub tests: String,
}

/// All of them.
///
/// # Errors
///
/// When a patch cannot be read, or has no such head.
pub fn all() -> Result<Vec<Planted>> {
    // The first patch adds what the others ask.
    series()?.iter().skip(1).map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Planted> {
    let text = fs::read_to_string(path)?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        let value = value.with_context(|| format!("{} has no {name:?}", path.display()))?;
        Ok::<_, anyhow::Error>(value.to_owned())
    };
    let name = name(path);
    let switch = format!("rtm_planted::bug(\"{name}\")");
    ensure!(text.contains(&switch), "{name}.patch adds no {switch}");
    Ok(Planted {
        breaks: field("Breaks: ")?,
        package: field("Package: ")?,
        tests: field("Tests: ")?,
        name,
    })
}

/// Writes the working tree with the series into `dir`, in place of what is there.
///
/// # Errors
///
/// Those of [`apply`], and of the file system.
pub fn check_out(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    let index = dir.join(".index");
    apply(&index)?;
    let prefix = format!("--prefix={}/", dir.display());
    git(&index, &["checkout-index", "--all", &prefix])
}

/// Makes a git index of the working tree with the series applied: changed files as they are, new files once they are
/// committed. The working tree and git's own index stay as they are.
///
/// # Errors
///
/// Names each patch that does not apply.
pub fn apply(index: &Path) -> Result<()> {
    git(index, &["read-tree", "HEAD"])?;
    git(index, &["add", "--update"])?;
    let mut failures = String::new();
    for patch in series()? {
        let path = patch.display().to_string();
        if let Err(error) = git(index, &["apply", "--cached", &path]) {
            failures += &format!("{}.patch does not apply: {error}\n", name(&patch));
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}

/// The patches, in their order.
fn series() -> Result<Vec<PathBuf>> {
    let dir = workspace().join("tests/planted");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn git(index: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(workspace())
        .env("GIT_INDEX_FILE", index)
        .output()
        .context("start git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {}: {said}", arguments[0]);
    Ok(())
}
