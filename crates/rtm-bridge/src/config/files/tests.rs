#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;

use super::super::load::extract;
use super::super::{Config, ConfigError};
use super::*;
use crate::sinks::kafka::KafkaConfig;

const BASE: &str = "[journal]\ndir = \"journal\"\n[sinks.kafka]\nbrokers = [\"b:1\"]\n";

fn app(name: &str, app_id: &str) -> String {
    format!(
        "[[apps]]\nname = \"{name}\"\napp_id = \"{app_id}\"\nregions = [\"eu-west-1\"]\n\
             auth = {{ basic = {{ key = \"k\", secret = \"canary\" }} }}\n"
    )
}

/// A directory with these files.
fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// The files alone: another test of this process may have set a variable.
fn load(place: &Path) -> Result<Config, ConfigError> {
    extract(Files::read(place), &[])
}

/// What is wrong with them, without the directory's own path.
fn refused(files: &[(&str, &str)]) -> String {
    let dir = dir(files);
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(!error.contains("canary"), "{error}");
    error.replace(&format!("{}/", dir.path().display()), "")
}

/// Holds: tables come together key by key, apps in the order of the files' names, and nothing else is read.
#[test]
fn the_files_of_a_directory_are_one_configuration() {
    let dir = dir(&[
        ("30.toml", &app("c", "0c")),
        ("20.toml", &format!("{}{}", app("a", "0a"), app("b", "0b"))),
        ("10.toml", BASE),
        (
            "40.toml",
            "[sinks.kafka.options]\nacks = \"all\"\n[sinks.stdout]\n",
        ),
        ("50.toml", "[journal]\nmax_bytes = \"1GiB\"\n"),
        (".60.toml", "broken"),
        ("70.toml~", "broken"),
        ("toml", "broken"),
    ]);
    std::fs::create_dir(dir.path().join("80.toml")).unwrap();
    std::fs::create_dir(dir.path().join("more")).unwrap();
    std::fs::write(dir.path().join("more/90.toml"), "broken").unwrap();
    let config = load(dir.path()).unwrap();
    let names = config.apps.iter().map(|app| app.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(config.journal.dir, Path::new("journal"));
    assert_eq!(config.journal.max_bytes, 1 << 30);
    assert_eq!(config.sinks.len(), 2);
    let kafka: &dyn std::any::Any = config.sinks["kafka"].table();
    let kafka = kafka.downcast_ref::<KafkaConfig>().unwrap();
    assert_eq!((kafka.brokers.len(), kafka.options.len()), (1, 1));
    assert!(!format!("{config:?}").contains("canary"));
}

/// Holds: a configuration map as Kubernetes mounts it is read once, through its links.
#[test]
fn a_mounted_configuration_map_is_read() {
    let dir = dir(&[]);
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("..2026_01_01")).unwrap();
    std::fs::write(at("..2026_01_01/10.toml"), BASE).unwrap();
    std::fs::write(at("..2026_01_01/20.toml"), app("a", "0a")).unwrap();
    symlink("..2026_01_01", at("..data")).unwrap();
    for name in ["10.toml", "20.toml"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    assert_eq!(load(dir.path()).unwrap().apps.len(), 1);
    assert_eq!(files(dir.path()).unwrap(), [at("10.toml"), at("20.toml")]);
}

/// Holds: what two files say names both of them and the key, whether it is a value or a table in one of them; all of it
/// at once.
#[test]
fn what_two_files_say_is_refused() {
    let twice = |key: &str| {
        format!("b.toml: {key}: stands in a.toml too, and a key may stand in one file only")
    };
    let a = format!("shutdown_deadline = \"5s\"\n{BASE}{}", app("a", "0a"));
    let cases = [
            ("[journal]\ndir = \"canary\"\n", twice("journal.dir")),
            ("[journal.dir]\nx = 1\n", "b.toml: journal.dir: is a table here, and a value in a.toml".to_owned()),
            ("journal = 1\n", "b.toml: journal: is a value here, and a table in a.toml".to_owned()),
            ("shutdown_deadline = \"6s\"\n", twice("shutdown_deadline")),
            ("[sinks.kafka]\nbrokers = [\"b:2\"]\n", twice("sinks.kafka.brokers")),
            (
                "[apps]\nname = \"x\"\n",
                "b.toml: apps: expected a list, found a table: write `[[apps]]` before the keys of each app".to_owned(),
            ),
            (
                "[journal]\ndir = \"x\"\n[sinks.kafka]\nbrokers = []\n",
                format!("{}\n{}", twice("journal.dir"), twice("sinks.kafka.brokers")),
            ),
            (
                &app("a", "0b"),
                "b.toml: apps.0.name: `a` is the name of an app in a.toml too".to_owned(),
            ),
            (
                &format!("{}{}", app("b", "0b"), app("c", "0a")),
                "b.toml: apps.1.app_id: an app in a.toml has this App ID too; they would steal each other's events"
                    .to_owned(),
            ),
        ];
    for (b, says) in cases {
        assert_eq!(refused(&[("a.toml", &a), ("b.toml", b)]), says, "{b}");
    }
    // Wherever the table stands, its file is named, and no other.
    let apps = "[apps]\nname = \"x\"\n";
    let told = refused(&[
        ("a.toml", apps),
        ("b.toml", BASE),
        ("c.toml", &app("a", "0a")),
    ]);
    assert!(
        told.starts_with("a.toml: apps: expected a list") && !told.contains("c.toml"),
        "{told}"
    );
    // An App ID of digits is the same with quotes and without.
    let (number, text) = (app("a", "12"), app("b", "12"));
    let number = number.replace("\"12\"", "12");
    let told = refused(&[("a.toml", BASE), ("b.toml", &number), ("c.toml", &text)]);
    assert!(
        told.starts_with("c.toml: apps.0.app_id: an app in b.toml"),
        "{told}"
    );
    // Below `auth` a key may be a secret in the wrong place.
    let nats = "[sinks.nats.auth]\ncanary = 1\n";
    let told = refused(&[("a.toml", nats), ("b.toml", nats)]);
    assert!(
        told.starts_with("b.toml: sinks.nats.auth: stands in a.toml too"),
        "{told}"
    );
}

/// Holds: whatever finds a problem, it is told with the file that the key stands in; an app counts from the beginning of
/// its file. What no file says is a problem of the directory.
#[test]
fn a_problem_names_its_file() {
    let apps = format!("{}{}", app("b", "0b"), app("c", "0c"));
    let mut wrong = Vec::new();
    for (from, to, says) in [
        (
            "name = \"c\"",
            "name = \"c d\"",
            "c.toml: apps.1.name: `c d` is not a name",
        ),
        (
            "name = \"c\"",
            "nmae = \"c\"",
            "c.toml: apps.1.nmae: unknown key `nmae`",
        ),
        (
            "name = \"c\"\n",
            "",
            "c.toml: apps.1: the key `name` is missing",
        ),
        (
            "app_id = \"0c\"",
            "app_id = []",
            "c.toml: apps.1.app_id: expected text",
        ),
        (
            "name = \"c\"",
            "name = \"b\"",
            "c.toml: apps.1.name: `b` is the name of two apps",
        ),
        (
            "[[apps]]",
            "[jurnal]\n[[apps]]",
            "c.toml: jurnal: unknown key `jurnal`",
        ),
        (
            "[[apps]]",
            "[journal]\nmax_bites = 1\n[[apps]]",
            "c.toml: journal.max_bites: unknown key `max_bites`",
        ),
        (
            "[[apps]]",
            "[journal]\nmax_bytes = 1\n[[apps]]",
            "c.toml: journal.max_bytes: ",
        ),
        (
            "[[apps]]",
            "[sinks.x]\n[[apps]]",
            "c.toml: sinks.x.type: unknown type `x`",
        ),
        (
            "[[apps]]",
            "[sinks.nats]\nservers = []\n[[apps]]",
            "c.toml: sinks.nats: the key `stream` is missing",
        ),
        (
            "[[apps]]",
            "[sinks.kafka.options]\n\"a.b\" = []\n[[apps]]",
            "c.toml: sinks.kafka.options.a.b: expected text",
        ),
        ("[[apps]]", "[[apps", "c.toml: TOML parse error at line"),
    ] {
        let broken = apps.replacen(from, to, 1);
        let told = refused(&[
            ("a.toml", BASE),
            ("b.toml", &app("a", "0a")),
            ("c.toml", &broken),
        ]);
        if !told.starts_with(says) {
            wrong.push(format!("{to}: {told}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    let dir = dir(&[("a.toml", BASE)]);
    let told = load(dir.path()).unwrap_err().to_string();
    assert_eq!(
        told,
        format!("{}: the key `apps` is missing", dir.path().display())
    );
}

/// Holds: a warning, too, counts an app from the beginning of its file, and names that.
#[test]
fn a_warning_names_its_file() {
    let warned = |config: &Config| {
        config
            .warnings(None)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    let dir = dir(&[
        ("a.toml", BASE),
        ("b.toml", &app("a", &"0".repeat(32))),
        ("c.toml", &app("b", "0b")),
    ]);
    let config = load(dir.path()).unwrap();
    let c = dir.path().join("c.toml").display().to_string();
    assert!(
        warned(&config).contains(&format!("{c}: apps.0.app_id")),
        "{:?}",
        warned(&config)
    );
    let config = Config::parse(&format!("{BASE}{}", app("b", "0b"))).unwrap();
    assert!(
        warned(&config).contains(&"apps.0.app_id".to_owned()),
        "{:?}",
        warned(&config)
    );
}

/// Holds: what a sink's `streams` leave out is warned of with the file of that sink, and not of another one.
#[test]
fn a_warning_of_streams_names_the_file_of_the_sink() {
    let narrow = "[sinks.late]\ntype = \"stdout\"\nstreams = [\"user\"]\n";
    let base = BASE.replace("[sinks.kafka]", "[sinks.kafka]\napps = [\"b\"]");
    let apps = format!("{}{}", app("a", "0a"), app("b", "0b"));
    let dir = dir(&[("a.toml", &base), ("b.toml", &apps), ("c.toml", narrow)]);
    let config = load(dir.path()).unwrap();
    let warned = config.warnings(None).into_iter();
    let keys: Vec<String> = warned
        .filter(|(_, text)| text.contains("no sink takes"))
        .map(|(key, _)| key)
        .collect();
    let c = dir.path().join("c.toml").display().to_string();
    assert_eq!(keys, [format!("{c}: sinks.late.streams")]);
}

/// Holds: a warning that the configuration before had is not new, wherever the app stands by now; another app's is.
#[test]
fn a_warning_is_new_once() {
    let before = Config::parse(&format!("{BASE}{}", app("b", "0b"))).unwrap();
    let after = Config::parse(&format!("{BASE}{}{}", app("a", "0a"), app("b", "0b"))).unwrap();
    let keys = |config: &Config, before: &Config| -> Vec<String> {
        let new = config.warnings(Some(before)).into_iter();
        new.map(|(key, _)| key).collect()
    };
    let new = keys(&after, &before);
    assert_eq!(new, ["apps.0.app_id", "apps.0.auth.basic.secret"]);
    assert_eq!(keys(&before, &after), [""; 0]);
    assert_eq!(keys(&after, &after), [""; 0]);
    assert_eq!(
        after.warnings(None).len(),
        before.warnings(None).len() + new.len()
    );
}

/// Holds: what cannot be read is told by its name, and with it what else is wrong; an empty directory tells what is
/// expected.
#[test]
fn what_cannot_be_read_is_told() {
    let broken = dir(&[("b.toml", "broken")]);
    symlink("nowhere", broken.path().join("a.toml")).unwrap();
    let told = load(broken.path()).unwrap_err().to_string();
    let lines: Vec<&str> = told.lines().collect();
    let [a, b] = lines[..] else { panic!("{told}") };
    assert!(
        a.contains("/a.toml: cannot read the configuration: No such file"),
        "{a}"
    );
    assert!(b.contains("/b.toml: TOML parse error"), "{b}");
    let empty = dir(&[(".a.toml", ""), ("a.txt", "")]);
    let told = load(empty.path()).unwrap_err().to_string();
    assert!(
        told.starts_with(&empty.path().display().to_string()),
        "{told}"
    );
    assert!(
        told.contains("expected at least one file named `*.toml`"),
        "{told}"
    );
}

/// Holds: variables lie over the whole, and what is wrong with one names it.
#[test]
#[allow(
    clippy::result_large_err,
    reason = "figment's own error type, in tests only"
)]
fn the_environment_lies_over_all_files() {
    figment::Jail::expect_with(|jail| {
        let at = jail.create_dir("conf.d")?;
        jail.create_file("conf.d/a.toml", BASE)?;
        jail.create_file("conf.d/b.toml", &app("a", "0a"))?;
        jail.set_env("RTM_BRIDGE__JOURNAL__DIR", "elsewhere");
        let config = Config::load(&at).unwrap();
        assert_eq!(config.journal.dir, Path::new("elsewhere"));
        assert_eq!(
            config.origin.of("journal.dir").0,
            "the environment variable RTM_BRIDGE__JOURNAL__DIR"
        );
        assert!(
            config
                .origin
                .of("sinks.kafka.brokers")
                .0
                .ends_with("/a.toml")
        );
        jail.set_env("RTM_BRIDGE__ADMIN__LISTEN", "127.0.0.1:1");
        assert_eq!(
            Config::admin(&at).unwrap().listen.to_string(),
            "127.0.0.1:1"
        );
        jail.set_env("RTM_BRIDGE__JOURNAL__MAX_BYTES", "lots");
        let told = Config::load(&at).unwrap_err().to_string();
        assert!(
            told.starts_with("the environment variable RTM_BRIDGE__JOURNAL__MAX_BYTES: "),
            "{told}"
        );
        Ok(())
    });
}
