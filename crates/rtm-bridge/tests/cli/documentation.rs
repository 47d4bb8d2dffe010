//! What the README and the pages below `docs/` show, and where they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Holds: every relative link leads to a file, and its fragment to a heading there.
#[test]
fn every_link_leads_somewhere() {
    let mut checked = 0;
    for page in pages() {
        for link in links(&text(&page)) {
            let (file, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !fragment.is_empty() {
                let found = anchors(&text(&target)).contains(fragment);
                assert!(found, "{}: {link}: no such heading", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

/// Holds: a reader of the index finds every page.
#[test]
fn the_index_lists_every_page() {
    let docs = root().join("docs");
    let index = docs.join("README.md");
    let listed: BTreeSet<PathBuf> = links(&text(&index))
        .iter()
        .map(|link| docs.join(link).canonicalize().unwrap())
        .collect();
    for page in pages() {
        let is_listed = page == index || !page.starts_with(&docs) || listed.contains(&page);
        assert!(is_listed, "{} is not in the index", page.display());
    }
}

/// Holds: what is shown as JSON is JSON.
#[test]
fn every_json_example_is_json() {
    for page in pages() {
        for block in blocks(&text(&page), "json") {
            let parsed = serde_json::from_str::<Value>(block);
            assert!(parsed.is_ok(), "{}: {parsed:?}", page.display());
        }
    }
}

/// Holds: every command that a page shows exists, and takes the flags that stand behind it.
#[test]
fn every_command_takes_its_flags() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;
    for page in pages() {
        for (command, flags) in commands(&text(&page)) {
            let help = helps.entry(command.clone()).or_insert_with(|| {
                let words = command.split(' ');
                let output = Command::new(env!("CARGO_BIN_EXE_rtm-bridge"))
                    .args(words)
                    .arg("--help")
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}: {command}", page.display());
                String::from_utf8(output.stdout).unwrap()
            });
            for flag in flags {
                let takes = help
                    .split(|c: char| !c.is_alphanumeric() && c != '-')
                    .any(|word| word == flag);
                assert!(takes, "{}: {command} {flag}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked}");
}

/// Holds: no page has a journal moved, copied or removed by the name that is a symbolic link with `DynamicUser=`, which the
/// unit has: that would leave the journal where it is.
#[test]
fn no_page_moves_the_symbolic_link() {
    let unit = text(&root().join("deploy/rtm-bridge.service"));
    assert!(unit.contains("\nDynamicUser=yes\n") && unit.contains("\nStateDirectory=rtm-bridge\n"));
    for page in pages() {
        let page_text = text(&page).replace("```", "`");
        for code in page_text.split('`').skip(1).step_by(2) {
            for line in code.lines().filter(|line| !line.contains("docker compose")) {
                let mut words = line.split_whitespace();
                let changes = words.any(|word| ["mv", "cp", "rm"].contains(&word));
                let of_link = line.contains("/var/lib/rtm-bridge");
                assert!(!(changes && of_link), "{}: {line}", page.display());
            }
        }
    }
}

/// Holds: the page about records has every header that a record or a dead letter can have.
#[test]
fn every_header_is_documented() {
    let page = text(&root().join("docs/reference/records.md"));
    let mut found = BTreeSet::new();
    let formats = root().join("crates/rtm-record/src/format");
    for file in fs::read_dir(formats).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let code = text(&path);
        let code = code.split("#[cfg(test)]").next().unwrap();
        let headers = code.split("\"rtm-").skip(1);
        found.extend(headers.map(|rest| format!("rtm-{}", rest.split('"').next().unwrap())));
    }
    assert!(found.len() >= 8, "{found:?}");
    for header in found {
        assert!(page.contains(&format!("| `{header}` |")), "{header}");
    }
}

/// Holds: whatever the code map names is there, in the file that it names.
#[test]
fn the_code_map_names_what_there_is() {
    const KINDS: [&str; 7] = [
        "fn",
        "struct",
        "enum",
        "trait",
        "const",
        "type",
        "macro_rules!",
    ];
    let named = named(&text(&root().join("docs/architecture.md")));
    for (file, name) in &named {
        let text = fs::read_to_string(root().join(file));
        let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
        let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_there = |kind: &&str| {
            let item = format!("{kind} {name}");
            text.split(&item).skip(1).any(is_whole)
        };
        assert!(KINDS.iter().any(is_there), "no {name} in {file}");
    }
    assert!(named.len() > 100, "{}", named.len());
}

/// README, CHANGELOG, SECURITY and every page below `docs/`.
pub(super) fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for name in ["README.md", "CHANGELOG.md", "SECURITY.md"] {
        pages.push(root().join(name));
    }
    let mut directories = vec![root().join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

pub(super) fn text(page: &Path) -> String {
    fs::read_to_string(page).unwrap()
}

/// Code of a language in a page, between fences.
pub(super) fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let parts = page.split(&fence).skip(1);
    parts
        .map(|part| part.split_once("```").unwrap().0)
        .collect()
}

/// What a page names as `path/of/file.rs::name`, as file and name; `::name` is in the file that its line named before.
/// Files are below `crates/`, those below `it/` in `tests/tests/it/`.
pub(super) fn named(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in page.lines() {
        let mut file = String::new();
        for word in line.split('`').skip(1).step_by(2) {
            let Some((path, name)) = word.split_once("::") else {
                continue;
            };
            if !path.is_empty() {
                file = match path.strip_prefix("it/") {
                    Some(path) => format!("tests/tests/it/{path}"),
                    None if path.starts_with("tests/") => path.to_owned(),
                    None => format!("crates/{path}"),
                };
            }
            found.push((file.clone(), name.to_owned()));
        }
    }
    found
}

pub(super) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// The commands of rtm-bridge in a page's code, each with its flags.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    const NESTED: [&str; 3] = ["journal", "schema", "config"];
    let mut found = Vec::new();
    let page = page.replace("```", "`").replace("\\\n", " ");
    for line in page.split('`').skip(1).step_by(2).flat_map(str::lines) {
        let mut words = line.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if !["rtm-bridge", "rtm-bridge.new", "rtm-bridge.old"].contains(&word) {
                continue;
            }
            let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
            let Some(mut command) = words.next_if(is_name).map(str::to_owned) else {
                continue;
            };
            if command == "help" {
                continue;
            }
            if NESTED.contains(&&*command)
                && let Some(nested) =
                    words.next_if(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
            {
                // `journal stat|verify` are two.
                command = format!("{command} {}", nested.split('|').next().unwrap());
            }
            let mut flags = Vec::new();
            while let Some(word) = words.next_if(|word| !["|", "#", "&&", ";"].contains(word)) {
                if word.starts_with("--") && word.len() > 2 {
                    flags.push(word.split('=').next().unwrap().to_owned());
                }
            }
            found.push((command, flags));
        }
    }
    found
}

/// A page's lines outside of fences.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let parts = page.split("```").step_by(2);
    parts.flat_map(str::lines)
}

/// Targets of links and pictures, those on other hosts left out.
fn links(page: &str) -> Vec<String> {
    let targets = prose(page).flat_map(|line| line.split("](").skip(1));
    targets
        .map(|rest| rest.split_once(')').unwrap().0)
        .filter(|target| !target.contains("://"))
        .map(str::to_owned)
        .collect()
}

/// The fragments that a page's headings have on GitHub.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c => (c.is_alphanumeric() || c == '-' || c == '_').then_some(c),
            });
            kept.collect()
        })
        .collect()
}
