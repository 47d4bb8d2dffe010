//! Secrets: what gives them away is warned of, and what editors leave around them is no part of them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use nkeys::KeyPair;
use rtm_sim::{SimApp, SimAuth, SimConfig, Simulator};

use super::{SOUND, write_secret};

/// What `check` says of a configuration whose file has this mode, with these variables; and its exit code.
fn check(dir: &Path, toml: &str, mode: u32, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let file = dir.join("rtm-bridge.toml");
    std::fs::write(&file, toml.replace("DIR", dir.to_str().unwrap())).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let mut command = Command::cargo_bin("rtm-bridge").unwrap();
    let output = command
        .args(["check", "--config", file.to_str().unwrap()])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), texts.concat())
}

fn write(dir: &Path, name: &str, text: &str, mode: u32) {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
}

const NATS: &str = "[sinks.nats]\nservers = [\"nats://127.0.0.1:9\"]\nstream = \"RTM\"\n";

/// Every file of a secret, by its key: the file's name, and the configuration that names it.
fn files() -> Vec<(&'static str, &'static str, String)> {
    let nats = |auth: &str| format!("{SOUND}\n{NATS}auth = {{ {auth} }}\n");
    let kafka = |table: &str| format!("{SOUND}{table}\n");
    vec![
        ("apps.0.auth.basic.secret_file", "secret", SOUND.to_owned()),
        (
            "sinks.nats.auth.credentials_file",
            "creds",
            nats("credentials_file = \"DIR/creds\""),
        ),
        (
            "sinks.nats.auth.nkey_file",
            "seed",
            nats("nkey_file = \"DIR/seed\""),
        ),
        (
            "sinks.nats.auth.token_file",
            "text",
            nats("token_file = \"DIR/text\""),
        ),
        (
            "sinks.nats.auth.jwt.jwt_file",
            "text",
            nats("jwt = { jwt_file = \"DIR/text\", seed_file = \"DIR/seed\" }"),
        ),
        (
            "sinks.nats.auth.jwt.seed_file",
            "seed",
            nats("jwt = { jwt_file = \"DIR/text\", seed_file = \"DIR/seed\" }"),
        ),
        (
            "sinks.nats.auth.password.password_file",
            "text",
            nats("password = { user = \"u\", password_file = \"DIR/text\" }"),
        ),
        (
            "sinks.nats.tls.key_file",
            "text",
            format!(
                "{SOUND}\n{NATS}tls = {{ cert_file = \"DIR/public\", key_file = \"DIR/text\" }}\n"
            ),
        ),
        (
            "sinks.kafka.option_files.sasl.password",
            "text",
            kafka("option_files = { \"sasl.password\" = \"DIR/text\" }"),
        ),
        (
            "sinks.kafka.options.ssl.key.location",
            "text",
            kafka("options = { \"ssl.key.location\" = \"DIR/text\" }"),
        ),
        (
            "admin.token_file",
            "text",
            format!("{SOUND}\n[admin]\ntoken_file = \"DIR/text\"\n"),
        ),
        (
            "admin.tls.key_file",
            "text",
            format!("{SOUND}\n[admin.tls]\ncert_file = \"DIR/public\"\nkey_file = \"DIR/text\"\n"),
        ),
    ]
}

/// Holds: every file of a secret that everyone may read is warned of with its key and its name, and no other is.
#[test]
fn files_that_everyone_may_read_are_warned_of() {
    let pair = KeyPair::new_user();
    let seed = pair.seed().unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\nj\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    for (key, name, toml) in files() {
        for mode in [0o644, 0o640] {
            let dir = tempfile::tempdir().unwrap();
            for (file, text) in [
                ("secret", "s"),
                ("seed", &seed),
                ("creds", &creds),
                ("text", "t"),
            ] {
                write(
                    dir.path(),
                    file,
                    text,
                    if file == name { mode } else { 0o600 },
                );
            }
            write(dir.path(), "public", "p", 0o644);
            let (_, text) = check(dir.path(), &toml, 0o600, &[]);
            let path = dir.path().join(name);
            let says = format!(
                "warning: {key}: {} holds a secret, and can be read by everyone",
                path.display()
            );
            let warned = text
                .lines()
                .filter(|line| line.contains("read by everyone"))
                .count();
            assert_eq!(
                text.contains(&says),
                mode == 0o644,
                "{key} {mode:o}: {text}"
            );
            assert_eq!(warned, usize::from(mode == 0o644), "{key} {mode:o}: {text}");
        }
    }
}

/// Holds: a secret in the configuration itself is warned of with its key, and once more where everyone may read the file; one
/// that a variable sets is not.
#[test]
fn secrets_in_the_configuration_are_warned_of() {
    let inline = SOUND.replace("secret_file = \"DIR/secret\"", "secret = \"s\"");
    let cases = [
        ("apps.0.auth.basic.secret", inline),
        (
            "sinks.nats.auth.password.password",
            format!(
                "{SOUND}\n{NATS}auth = {{ password = {{ user = \"u\", password = \"p\" }} }}\n"
            ),
        ),
        (
            "sinks.kafka.options.sasl.password",
            format!("{SOUND}options = {{ \"sasl.password\" = \"p\" }}\n"),
        ),
        (
            "apps.0.proxy",
            SOUND.replace("regions", "proxy = \"http://u:p@127.0.0.1:9\"\nregions"),
        ),
    ];
    for (key, toml) in cases {
        for mode in [0o644, 0o600] {
            let dir = tempfile::tempdir().unwrap();
            write_secret(dir.path());
            let (code, text) = check(dir.path(), &toml, mode, &[]);
            assert_eq!(code, Some(0), "{text}");
            let says = format!("warning: {key}: a secret stands in the configuration itself");
            assert!(text.contains(&says), "{key}: {text}");
            let open = format!(
                "warning: {key}: {}",
                dir.path().join("rtm-bridge.toml").display()
            );
            assert_eq!(
                text.contains(&open),
                mode == 0o644,
                "{key} {mode:o}: {text}"
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    write_secret(dir.path());
    let toml = format!("{SOUND}\n{NATS}auth = {{ password = {{ user = \"u\" }} }}\n");
    let variable = ("RTM_BRIDGE__SINKS__NATS__AUTH__PASSWORD__PASSWORD", "p");
    let (code, text) = check(dir.path(), &toml, 0o644, &[variable]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("warning"), "{text}");
}

/// Holds: the carriage return that a file of variables leaves behind a value is no part of a path or of a secret, nor is the
/// byte order mark of an editor; where one stands elsewhere it is refused with its key.
#[test]
fn what_editors_leave_is_no_part_of_a_value() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = SimApp {
        app_id: "876922cbca0098dff4323566daa89675".to_owned(),
        auth: SimAuth::Basic {
            key: "k".to_owned(),
            secret: "s".to_owned(),
        },
    };
    let simulator = runtime.block_on(Simulator::start(SimConfig {
        apps: vec![app],
        ..SimConfig::default()
    }));
    let simulator = simulator.unwrap();
    let region = format!(
        "[{{ name = \"r\", base_url = \"{}\" }}]",
        simulator.base_url("eu-west-1")
    );
    let sound = SOUND.replace("[\"eu-west-1\"]", &region);
    let sound = sound.replace(
        "[sinks.kafka]\nbrokers = [\"127.0.0.1:9\"]",
        "[sinks.stdout]",
    );
    let from_variable = sound.replace(
        "secret_file = \"DIR/secret\"",
        "secret_env = \"RTM_SECRET\"",
    );
    for (toml, secret, variable) in [
        (&sound, "\u{feff}s\r\n", "unused"),
        (&from_variable, "unused", "s\r"),
        (&from_variable, "unused", "\u{feff}s"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "secret", secret, 0o600);
        let file = dir.path().join("rtm-bridge.toml");
        let marked = format!(
            "\u{feff}{}",
            toml.replace("DIR", dir.path().to_str().unwrap())
        );
        std::fs::write(&file, marked).unwrap();
        let output = Command::cargo_bin("rtm-bridge")
            .unwrap()
            .args(["check", "--connect", "--config", file.to_str().unwrap()])
            .env("RTM_SECRET", variable)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("the key is right"),
            "{secret:?} {variable:?}: {text}"
        );
    }

    let dir = tempfile::tempdir().unwrap();
    write_secret(dir.path());
    let journal = dir.path().join("other");
    let value = format!("{}\r", journal.display());
    let file = dir.path().join("rtm-bridge.toml");
    std::fs::write(&file, SOUND.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    let output = Command::cargo_bin("rtm-bridge")
        .unwrap()
        .args(["journal", "stat", "--config", file.to_str().unwrap()])
        .env("RTM_BRIDGE__JOURNAL__DIR", &value)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&*journal.display().to_string()) && !text.contains("\\r"),
        "{text}"
    );

    for (from, to, key) in [
        ("DIR/journal", "DIR/journal\\r", "journal.dir"),
        (
            "DIR/secret",
            "DIR/secret\\n",
            "apps.0.auth.basic.secret_file",
        ),
        ("127.0.0.1:9", "127.0.0.1:9\\r", "sinks.kafka.brokers.0"),
        (
            "secret_file = \"DIR/secret\"",
            "secret = \"s\\r\"",
            "apps.0.auth.basic.secret",
        ),
    ] {
        let (code, text) = check(dir.path(), &SOUND.replace(from, to), 0o600, &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains(&format!("{key}: holds a control character")),
            "{key}: {text}"
        );
    }
}

/// Holds: a variable that names certificates which are not there is warned of.
#[test]
fn certificates_that_are_not_there_are_warned_of() {
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let dir = tempfile::tempdir().unwrap();
        write_secret(dir.path());
        let (_, text) = check(dir.path(), SOUND, 0o600, &[(variable, "/nowhere/ca")]);
        let says = format!(
            "warning: the environment variable {variable}: names /nowhere/ca, which is not there"
        );
        assert!(text.contains(&says), "{text}");
    }
}

/// Holds: every key that an error or a hint names in this way exists.
#[test]
fn hints_name_keys_that_exist() {
    let schema = Command::cargo_bin("rtm-bridge")
        .unwrap()
        .args(["schema", "config"])
        .output()
        .unwrap();
    let schema = String::from_utf8(schema.stdout).unwrap();
    let mut named = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in ["rtm-source", "rtm-sink-nats", "rtm-sink-kafka"] {
        for entry in std::fs::read_dir(root.join(file).join("src")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = shipped
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            // In words that people read, keys stand in backticks.
            for quoted in code.flat_map(|line| line.split('`').skip(1).step_by(2)) {
                let is_key = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
                if quoted.len() > 1 && quoted.contains('_') && quoted.chars().all(is_key) {
                    named.push((path.display().to_string(), quoted.to_owned()));
                }
            }
        }
    }
    assert!(named.iter().any(|(_, key)| key == "ca_file"), "{named:?}");
    for (path, key) in named {
        let last = key.rsplit('.').next().unwrap();
        assert!(
            schema.contains(&format!("\"{last}\"")),
            "{path}: there is no key `{key}`"
        );
    }
}
