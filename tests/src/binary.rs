//! Where the `rtm-bridge` binary is, and whether it is that of the sources as they stand.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

/// The binary of the same target directory and profile as this executable.
///
/// # Errors
///
/// When it is missing, or older than a source file that it is made of, with what to run.
pub fn rtm_bridge() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let dir = executable
        .parent()
        .context("an executable has a directory")?;
    // Tests lie in `deps`, other programs beside the binary.
    let dir = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    let binary = dir.join("rtm-bridge");
    let release = if dir.ends_with("release") {
        " --release"
    } else {
        ""
    };
    let remedy = format!(
        "run `cargo build{release} -p rtm-bridge`, or `cargo test --workspace`, which builds it too"
    );
    let Ok(built) = binary.metadata().and_then(|metadata| metadata.modified()) else {
        bail!("there is no {}: {remedy}", binary.display());
    };
    if let Some(newer) = newer_source(&dir.join("deps"), workspace(), built)? {
        bail!(
            "{} is older than {}: {remedy}",
            binary.display(),
            newer.display()
        );
    }
    Ok(binary)
}

pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// A source file of the bridge that was changed after `built`.
///
/// The sources are those that the compiler listed for the newest library of each of our crates. Every `.rs` file below
/// `crates/` would be too many: cargo does not build the binary again for one that only tests are made of, and then the
/// remedy would be none.
fn newer_source(deps: &Path, workspace: &Path, built: SystemTime) -> Result<Option<PathBuf>> {
    let mut newest: HashMap<String, (SystemTime, PathBuf)> = HashMap::new();
    for file in fs::read_dir(deps).with_context(|| format!("read {}", deps.display()))? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        // librtm_journal-0123456789abcdef.rlib, listed in rtm_journal-0123456789abcdef.d
        let Some(unit) = name
            .strip_prefix("lib")
            .and_then(|name| name.strip_suffix(".rlib"))
        else {
            continue;
        };
        let Some((library, _)) = unit.rsplit_once('-') else {
            continue;
        };
        if !library.starts_with("rtm_") || library == "rtm_tests" {
            continue;
        }
        let candidate = (file.metadata()?.modified()?, deps.join(format!("{unit}.d")));
        let known = newest
            .entry(library.to_owned())
            .or_insert_with(|| candidate.clone());
        if known.0 < candidate.0 {
            *known = candidate;
        }
    }
    ensure!(
        !newest.is_empty(),
        "no library of ours in {}: cannot tell whether rtm-bridge is stale",
        deps.display()
    );
    let mut sources = vec![workspace.join("crates/rtm-bridge/src/main.rs")];
    for (_, list) in newest.values() {
        let text = fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
        sources.extend(listed(&text).map(|source| workspace.join(source)));
    }
    let changed = |source: &PathBuf| {
        source
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    Ok(sources
        .into_iter()
        .find(|source| changed(source).is_some_and(|changed| changed > built)))
}

/// The Rust sources in a dependency file of the compiler's, which is a makefile: `output: source source …` and, for
/// each source, `source:`.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.strip_suffix(':'))
        .filter(|source| source.ends_with(".rs"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::time::Duration;

    use super::*;

    /// A workspace at minute 10: `rtm_a` was built at minute 1 with two files and at minute 2 with one; a test of it
    /// with another file.
    fn workspace_with(changed: &[(&str, u64)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str, minute: u64| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(at(minute))
                .unwrap();
        };
        for source in [
            "crates/a/src/lib.rs",
            "crates/a/src/old.rs",
            "crates/a/src/tests.rs",
            "crates/rtm-bridge/src/main.rs",
        ] {
            write(source, "", 0);
        }
        for (name, minute, sources) in [("1", 1, &["lib", "old"][..]), ("2", 2, &["lib"])] {
            let all: Vec<_> = sources
                .iter()
                .map(|source| format!("crates/a/src/{source}.rs"))
                .collect();
            let list = format!(
                "/x/rtm_a-{name}.d: {}\n\n{}:\n",
                all.join(" "),
                all.join(":\n")
            );
            write(&format!("deps/rtm_a-{name}.d"), &list, minute);
            write(&format!("deps/librtm_a-{name}.rlib"), "", minute);
        }
        write(
            "deps/rtm_a-3.d",
            "/x/rtm_a-3: crates/a/src/tests.rs\n\ncrates/a/src/tests.rs:\n",
            3,
        );
        for (source, minute) in changed {
            write(source, "", *minute);
        }
        dir
    }

    fn at(minute: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 60 * minute)
    }

    fn newer(changed: &[(&str, u64)]) -> Option<PathBuf> {
        let dir = workspace_with(changed);
        let newer = newer_source(&dir.path().join("deps"), dir.path(), at(5)).unwrap();
        newer.map(|path| path.strip_prefix(dir.path()).unwrap().to_path_buf())
    }

    /// Only a change, after the binary was built, to a file that the binary is made of makes it stale.
    #[test]
    fn stale_after_a_change_to_its_sources() {
        assert_eq!(newer(&[]), None);
        assert_eq!(newer(&[("crates/a/src/lib.rs", 4)]), None);
        assert_eq!(
            newer(&[("crates/a/src/lib.rs", 6)]),
            Some("crates/a/src/lib.rs".into())
        );
        assert_eq!(
            newer(&[("crates/rtm-bridge/src/main.rs", 6)]),
            Some("crates/rtm-bridge/src/main.rs".into())
        );
        assert_eq!(
            newer(&[("crates/a/src/tests.rs", 6)]),
            None,
            "only tests are made of it"
        );
        assert_eq!(
            newer(&[("crates/a/src/old.rs", 6)]),
            None,
            "no longer part of the library"
        );
    }

    /// Where nothing can be known, nothing is claimed.
    #[test]
    fn refuses_to_guess() {
        let dir = tempfile::tempdir().unwrap();
        assert!(newer_source(dir.path(), dir.path(), at(5)).is_err());
    }
}
