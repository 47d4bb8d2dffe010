//! Who imports whom: no circle of files within a crate, and between crates only the arrows of a table.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Which crates of the workspace a crate may import. A crate that is not here may import none.
const ARROWS: [(&str, &[&str]); 5] = [
    ("rtm-bridge", &["*"]),
    (
        "rtm-engine",
        &["rtm-journal", "rtm-record", "rtm-sink", "rtm-source"],
    ),
    ("rtm-record", &["rtm-journal", "rtm-sink", "rtm-source"]),
    ("rtm-sink-kafka", &["rtm-sink"]),
    ("rtm-sink-nats", &["rtm-sink"]),
];

/// Holds: the crates keep to both rules, in what is shipped.
#[test]
fn imports_go_one_way() {
    let faults = faults(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The imports that are part of a circle, and those that no arrow allows, as `crate: file → file: names`.
fn faults(crates: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for name in fs::read_dir(crates).unwrap() {
        let name = name.unwrap().file_name().into_string().unwrap();
        let Ok(manifest) = fs::read_to_string(crates.join(&name).join("Cargo.toml")) else {
            continue;
        };
        let mut found = dependencies(&manifest);
        found.retain(|(_, to), _| !is_allowed(&name, to));
        for root in ["lib.rs", "main.rs"] {
            let src = crates.join(&name).join("src");
            if src.join(root).exists() {
                let mut shipped = Shipped::default();
                shipped.read(&src, root, &[]);
                let (files, mut others) = shipped.imports();
                others.retain(|(_, to), _| !is_allowed(&name, to));
                found.append(&mut others);
                let circles = files
                    .iter()
                    .filter(|((from, to), _)| leads(&files, to, from));
                found.extend(circles.map(|(import, names)| (import.clone(), names.clone())));
            }
        }
        for ((from, to), names) in found {
            let names: Vec<String> = names.into_iter().collect();
            faults.push(format!("{name}: {from} → {to}: {}", names.join(", ")));
        }
    }
    faults
}

/// What names go from a file to another, or to a crate.
type Imports = BTreeMap<(String, String), BTreeSet<String>>;

fn is_allowed(from: &str, to: &str) -> bool {
    let mut arrows = ARROWS.iter().filter(|(one, _)| *one == from);
    from == to || arrows.any(|(_, others)| others.contains(&"*") || others.contains(&to))
}

/// Whether imports lead from `from` to `to`, over other files or at once.
fn leads(imports: &Imports, from: &str, to: &str) -> bool {
    let (mut met, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        if met.insert(file) {
            let of_file = imports.keys().filter(|(one, _)| one == file);
            next.extend(of_file.map(|(_, other)| other.as_str()));
        }
    }
    met.contains(to)
}

/// The crates of the workspace that a manifest names, those for tests left out.
fn dependencies(manifest: &str) -> Imports {
    let mut imports = Imports::new();
    let mut table = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let shipped = table == "dependencies" || table.ends_with(".dependencies");
        if shipped && name.starts_with("rtm-") {
            let import = ("Cargo.toml".to_owned(), name.to_owned());
            imports.insert(import, [table.to_owned()].into());
        }
    }
    imports
}

/// A path of names: a module's within its crate (none for the root), or one that stands in a file.
type Names = Vec<String>;

/// The modules of a crate that are not there for tests alone.
#[derive(Default)]
struct Shipped {
    /// Where each module is: an inline one in the file of the module around it.
    files: BTreeMap<Names, String>,
    /// Every path of two names or more, and the module in which it stands.
    paths: Vec<(Names, Names)>,
    /// What a name stands for in a module by `use`.
    uses: BTreeMap<(Names, String), Names>,
}

impl Shipped {
    /// Takes in a file, and the files of the modules that it declares.
    fn read(&mut self, src: &Path, file: &str, module: &[String]) {
        let text = fs::read_to_string(src.join(file)).unwrap();
        self.take(src, file, module, &tokens(&text));
    }

    fn take(&mut self, src: &Path, file: &str, module: &[String], tokens: &[&str]) {
        self.files.insert(module.to_vec(), file.to_owned());
        let child = |name: &str| [module, &[name.to_owned()]].concat();
        let mut at = 0;
        while at < tokens.len() {
            let mut found = Vec::new();
            at = match tokens[at..] {
                ["#", "[", "cfg", "(", "test", ")", "]", ..] => item_end(tokens, at + 7),
                ["mod", name, ";", ..] => {
                    let path = child(name).join("/");
                    let files = [format!("{path}.rs"), format!("{path}/mod.rs")];
                    let file = files.iter().find(|file| src.join(file).exists());
                    let file = file.unwrap_or_else(|| panic!("the module {path} has no file"));
                    self.read(src, file, &child(name));
                    at + 3
                }
                ["mod", name, "{", ..] => {
                    let end = item_end(tokens, at);
                    self.take(src, file, &child(name), &tokens[at + 3..end - 1]);
                    end
                }
                ["use", ..] => {
                    let end = tree(tokens, at + 1, &[], &mut found);
                    for (name, path) in found.iter().filter(|(name, _)| name != "*") {
                        let name = (module.to_vec(), name.clone());
                        self.uses.insert(name, path.clone());
                    }
                    end
                }
                [_, "::", ..] => tree(tokens, at, &[], &mut found),
                _ => at + 1,
            };
            let paths = found.into_iter().map(|(_, path)| (module.to_vec(), path));
            self.paths.extend(paths);
        }
    }

    /// The imports of files of this crate, and of other crates of the workspace.
    fn imports(&self) -> (Imports, Imports) {
        let (mut files, mut crates) = (Imports::new(), Imports::new());
        for (module, path) in &self.paths {
            let from = &self.files[module];
            if path[0].starts_with("rtm_") {
                let import = (from.clone(), path[0].replace('_', "-"));
                let names = crates.entry(import).or_default();
                names.insert(path[1..].join("::"));
            } else if let Some((file, name)) = self.resolve(module, path)
                && file != *from
            {
                let names = files.entry((from.clone(), file)).or_default();
                names.insert(name);
            }
        }
        (files, crates)
    }

    /// The file that defines what a path stands for, and its name there; nothing where that is outside of the crate.
    fn resolve(&self, module: &[String], path: &[String]) -> Option<(String, String)> {
        let mut at = module.to_vec();
        for (place, name) in path.iter().enumerate() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            match name.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => (),
                _ if self.files.contains_key(&child) => at = child,
                _ => {
                    return match self.uses.get(&(at.clone(), name.clone())) {
                        Some(meant) if meant[0] != *name => {
                            self.resolve(&at, &[meant, &path[place + 1..]].concat())
                        }
                        None if place > 0 => Some((self.files[&at].clone(), name.clone())),
                        _ => None,
                    };
                }
            }
        }
        Some((self.files[&at].clone(), path.last()?.clone()))
    }
}

/// Adds the paths of the tree that begins at `at`, each with the name that `use` gives it, and returns the tree's end.
fn tree(
    tokens: &[&str],
    mut at: usize,
    before: &[String],
    found: &mut Vec<(String, Names)>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens[at] {
            "{" => {
                while tokens[at] != "}" {
                    at = tree(tokens, at + 1, &path, found);
                }
                return at + 1;
            }
            // Behind the last comma.
            "}" => return at,
            "self" if !path.is_empty() => (),
            name => path.push(name.to_owned()),
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let ["as", alias, "," | "}" | ";", ..] = tokens[at..] {
        name = alias.to_owned();
        at += 2;
    }
    found.push((name, path));
    at
}

/// The end of the item that begins at `at`.
fn item_end(tokens: &[&str], mut at: usize) -> usize {
    let mut depth = 0;
    loop {
        match tokens[at] {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => (),
        }
        at += 1;
        if depth <= 0 && matches!(tokens[at - 1], ";" | "}") {
            return at;
        }
    }
}

/// Words, `::` and other signs, one by one; comments and literals are left out.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let passed = match rest.starts_with("//") {
            true => rest.find('\n').or(Some(rest.len())),
            false => literal_end(rest),
        };
        let end = passed.unwrap_or_else(|| match first {
            ':' if rest.starts_with("::") => 2,
            first if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            first => first.len_utf8(),
        });
        if passed.is_none() {
            tokens.push(&rest[..end]);
        }
        rest = rest[end..].trim_start();
    }
    tokens
}

/// The end of the string or character that `text` begins with, if it begins with one.
fn literal_end(text: &str) -> Option<usize> {
    let inner = text.trim_start_matches(['b', 'r', '#']);
    let prefix = &text[..text.len() - inner.len()];
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    // Others are lifetimes.
    let is_char = inner.starts_with("'\\") || inner.chars().nth(2) == Some('\'');
    if quote == '\'' && !is_char {
        return None;
    }
    let close = format!("{quote}{}", prefix.trim_start_matches(['b', 'r']));
    let mut at = prefix.len() + 1;
    while !text[at..].starts_with(&close) {
        let is_escape = text[at..].starts_with('\\') && !prefix.contains('r');
        at += usize::from(is_escape) + text[at..].chars().next()?.len_utf8();
    }
    Some(at + close.len())
}

/// The faults of one crate, `rtm-sink`, with these dependencies and files.
fn planted(dependencies: &str, files: &[(&str, &str)]) -> Vec<String> {
    let crates = tempfile::tempdir().unwrap();
    let sink = crates.path().join("rtm-sink");
    for (name, text) in files {
        let file = sink.join("src").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    fs::write(sink.join("Cargo.toml"), dependencies).unwrap();
    faults(crates.path())
}

const LIB: &str = "mod a;\nmod b;\npub use a::A;\npub use b::{self as other, B, inner::C};\n";

/// Holds: what `lib.rs` only passes on, tests, comments, strings and a module's own names make no circle.
#[test]
fn one_way_is_no_fault() {
    let a =
        "use crate::{B as Other, C};\nfn a<'a>(_: &'a str, _: char) { b(\"crate::B\", '\"'); }\n";
    let b = "pub struct B;\npub mod inner {\n    use super::B;\n    pub struct C; // crate::A\n}\n\
             #[cfg(test)]\nmod tests {\n    use crate::A;\n    use rtm_sim::Simulator;\n}\n";
    let dependencies =
        "[dependencies]\nbytes.workspace = true\n[dev-dependencies]\nrtm-sim.workspace = true\n";
    let files = [("lib.rs", LIB), ("a.rs", a), ("b.rs", b)];
    assert_eq!(planted(dependencies, &files), Vec::<String>::new());
}

/// Holds: a circle is told with all its imports, whichever way they are written.
#[test]
fn circles_are_named() {
    let a = "use crate::{B, other};\npub struct A;\n";
    let b = "mod c;\npub mod inner { pub struct C(super::super::A); }\nfn b() { c::c(); }\npub struct B;\n";
    let c = "pub fn c() -> super::B {}\n";
    let files = [("lib.rs", LIB), ("a.rs", a), ("b.rs", b), ("b/c.rs", c)];
    assert_eq!(
        planted("", &files),
        [
            "rtm-sink: a.rs → b.rs: B, b",
            "rtm-sink: b.rs → a.rs: A",
            "rtm-sink: b.rs → b/c.rs: c",
            "rtm-sink: b/c.rs → b.rs: B",
        ]
    );
    let lib = "mod a;\npub struct Position;\npub use a::A;\n";
    let a = "use crate::Position;\n";
    assert_eq!(
        planted("", &[("lib.rs", lib), ("a.rs", a)]),
        [
            "rtm-sink: a.rs → lib.rs: Position",
            "rtm-sink: lib.rs → a.rs: A",
        ]
    );
}

/// Holds: an import of a crate where no arrow goes is told, from the manifest and from the file.
#[test]
fn forbidden_arrows_are_named() {
    let dependencies = "[dependencies]\nbytes = \"1\"\nrtm-bridge = { path = \"..\" }\n";
    let lib = "use rtm_bridge::{config::Config, wire};\nfn f() { rtm_journal::f(); }\n";
    assert_eq!(
        planted(dependencies, &[("lib.rs", lib)]),
        [
            "rtm-sink: Cargo.toml → rtm-bridge: dependencies",
            "rtm-sink: lib.rs → rtm-bridge: config::Config, wire",
            "rtm-sink: lib.rs → rtm-journal: f",
        ]
    );
}
