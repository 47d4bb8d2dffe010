//! Local brokers: Kafka's jars by Maven, nats-server by Go, each once per version and cache directory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{cache_dir, say};

/// Kafka's jars, its log configuration, and a formatted data directory to copy, all in the directory returned.
///
/// Blocks, for minutes the first time.
pub(super) fn kafka() -> Result<PathBuf> {
    // The whole file decides, so that a changed log binding is not taken for the installed one.
    let mut hasher = DefaultHasher::new();
    (POM, LOG4J).hash(&mut hasher);
    let name = format!(
        "kafka-{}-{:08x}",
        kafka_version()?,
        hasher.finish() & 0xffff_ffff
    );
    installed(&name, |dir| {
        fs::write(dir.join("pom.xml"), POM)?;
        fs::write(dir.join(LOG4J_FILE), LOG4J)?;
        run(
            Command::new("mvn")
                .args(["--batch-mode", "--quiet", "--file"])
                .arg(dir.join("pom.xml"))
                .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
                .arg(format!("-DoutputDirectory={}", dir.join("jars").display())),
            "Maven and Java 17 or later (Debian: apt-get install maven openjdk-17-jre-headless)",
        )?;
        // Formatting takes a second of Java, and its result does not depend on ports or paths: once is enough.
        format(dir, &dir.join("formatted"), &[])
    })
}

/// A formatted data directory in which `users`, pairs of a name and a password, have SCRAM credentials.
///
/// Blocks, for seconds the first time.
pub(super) fn kafka_with_users(users: &[(&str, &str)]) -> Result<PathBuf> {
    let kafka = kafka()?;
    let mut hasher = DefaultHasher::new();
    users.hash(&mut hasher);
    let kafka_name = kafka.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{kafka_name}-users-{:08x}", hasher.finish() & 0xffff_ffff);
    let arguments: Vec<String> = users
        .iter()
        .flat_map(|(user, password)| {
            ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                .map(|kind| format!("{kind}=[name={user},password={password}]"))
        })
        .flat_map(|user| ["--add-scram".to_owned(), user])
        .collect();
    let dir = installed(&name, |dir| {
        format(&kafka, &dir.join("formatted"), &arguments)
    })?;
    Ok(dir.join("formatted"))
}

/// Makes `data` a data directory by the Kafka installed in `kafka`.
fn format(kafka: &Path, data: &Path, more: &[String]) -> Result<()> {
    let settings = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n\
         controller.quorum.voters=1@127.0.0.1:9093\nlog.dirs={}\n",
        data.display()
    );
    let file = data.with_extension("properties");
    fs::write(&file, settings)?;
    run(
        Command::new("java")
            .args(java_arguments(kafka))
            .args([
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                super::kafka::CLUSTER_ID,
                "--config",
            ])
            .arg(&file)
            .args(more),
        "Java 17 or later (Debian: apt-get install openjdk-17-jre-headless)",
    )
}

/// The version that `pom.xml` names.
pub(super) fn kafka_version() -> Result<&'static str> {
    let start = POM
        .split_once("<kafka.version>")
        .context("no kafka.version in pom.xml")?
        .1;
    Ok(start
        .split_once('<')
        .context("no end of kafka.version in pom.xml")?
        .0)
}

/// What `java` needs to run a class of the Kafka installed in `dir`.
pub(super) fn java_arguments(dir: &Path) -> [String; 3] {
    [
        format!(
            "-Dlog4j2.configurationFile={}",
            dir.join(LOG4J_FILE).display()
        ),
        "-cp".to_owned(),
        format!("{}/*", dir.join("jars").display()),
    ]
}

/// The nats-server binary. Blocks, for a minute the first time.
pub(super) fn nats_server() -> Result<PathBuf> {
    let dir = installed(&format!("nats-server-{NATS_VERSION}"), |dir| {
        run(
            Command::new("go")
                .env("GOBIN", dir)
                // Without it the server would need the C library of the machine that built it.
                .env("CGO_ENABLED", "0")
                .args([
                    "install",
                    &format!("github.com/nats-io/nats-server/v2@v{NATS_VERSION}"),
                ]),
            "Go 1.26 or later (https://go.dev/dl)",
        )
    })?;
    Ok(dir.join("nats-server"))
}

/// The server that is installed, and the container image of the same version.
pub(super) const NATS_VERSION: &str = "2.15.2";

/// The directory `name` in the cache, made by `make` if it is not there.
///
/// A lock keeps two processes from making it at once, and it appears whole or not at all.
pub(crate) fn installed(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let dir = cache.join(name);
    if dir.exists() {
        return Ok(dir);
    }
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()
        .with_context(|| format!("lock {name} in {}", cache.display()))?;
    if dir.exists() {
        return Ok(dir);
    }
    say(&format!("installing {name} into {}, once", cache.display()));
    let started = Instant::now();
    // Only the holder of the lock is here: what is there already is from an installation that was interrupted.
    let partial = cache.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir(&partial)?;
    make(&partial).with_context(|| format!("install {name}"))?;
    fs::rename(&partial, &dir)?;
    say(&format!(
        "installed {name} in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(dir)
}

/// Runs a command to its end. `needs` names what to install when it is not there.
fn run(command: &mut Command, needs: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| {
        format!(
            "`{program}` does not run. Install {needs}, or start a container engine, or give the addresses of running \
             brokers in RTM_TEST_KAFKA and RTM_TEST_NATS"
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    bail!(
        "`{program}` ended with {}; it needs {needs}:\n{}",
        output.status,
        said.concat()
    )
}

const POM: &str = include_str!("../../brokers/pom.xml");
const LOG4J: &str = include_str!("../../brokers/log4j2.properties");
const LOG4J_FILE: &str = "log4j2.properties";
