//! The dashboard as a person sees it: drawn in a browser with Grafana's own components, from a live Prometheus.
//!
//! A simulation stands in for what is in Grafana's core, which is not among its npm packages: the data source, the panel
//! plugins around the components, and the registry of their options. `tests/grafana/draw` has them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Prometheus, file, run};
use crate::brokers::install;
use crate::browser::{Browser, View};

/// What names the packages.
const PACKAGES: [&str; 2] = ["package.json", "package-lock.json"];

/// What the page is made of beside them.
const SOURCES: [&str; 5] = [
    "draw.jsx",
    "index.html",
    "panels.jsx",
    "prometheus.js",
    "seen.js",
];

/// A laptop's screen, beside Grafana's menu.
const SCREEN: View = View {
    width: 1366,
    height: 768,
    dark: true,
};

/// A browser that draws dashboards.
#[derive(Debug)]
pub struct Drawing {
    browser: Browser,
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The last seconds.
    pub seconds: u64,
    /// How often Prometheus scrapes, in seconds.
    pub scrape: u64,
}

/// A panel that was drawn.
#[derive(Debug, Clone, Deserialize)]
pub struct Drawn {
    /// The title of its row, with the value that the row is repeated for.
    pub row: String,
    /// Its title.
    pub title: String,
    /// Of each of its queries, how many series have values.
    pub queries: Vec<usize>,
    /// Errors of its queries, and of drawing it.
    pub errors: Vec<String>,
    /// Its text, save for that on the canvas of a graph.
    pub text: String,
    /// Texts of it that are cut off, or lie on one another.
    pub bad: Vec<String>,
    /// How many of its pixels are red.
    #[serde(default)]
    pub red: u64,
}

impl Drawing {
    /// Opens a browser. Takes half a minute the first time, to install Grafana's components.
    ///
    /// # Errors
    ///
    /// When they cannot be installed, or Chromium does not start, with what to install.
    pub async fn start() -> Result<Drawing> {
        let dir = tokio::task::spawn_blocking(page).await??;
        let url = format!("file://{}", dir.join("index.html").display());
        let mut browser = Browser::open(&url).await?;
        browser.view(SCREEN).await?;
        Ok(Drawing { browser })
    }

    /// Draws `dashboard` with all rows open, and its picture into `picture`, a PNG.
    ///
    /// # Errors
    ///
    /// When the page cannot be drawn at all; what is wrong with a panel is told of the panel.
    pub async fn draw(
        &mut self,
        dashboard: &Value,
        prometheus: &Prometheus,
        span: Span,
        picture: &Path,
    ) -> Result<Vec<Drawn>> {
        let Span { seconds, scrape } = span;
        let width = SCREEN.width;
        let how = json!({ "url": prometheus.url(), "seconds": seconds, "scrape": scrape, "width": width });
        let draw = format!("draw({dashboard}, {how})");
        let drawn = self.browser.evaluate(&draw).await?;
        let mut panels: Vec<Drawn> = serde_json::from_value(drawn)?;
        self.browser.screenshot(picture, true).await?;
        let png = STANDARD.encode(fs::read(picture)?);
        let red = self.browser.evaluate(&format!("red(\"{png}\")")).await?;
        let red: Vec<u64> = serde_json::from_value(red)?;
        ensure!(red.len() == panels.len(), "{} panels", red.len());
        for (panel, red) in panels.iter_mut().zip(red) {
            panel.red = red;
        }
        Ok(panels)
    }
}

/// The directory with the page, built if it is not there. Blocks.
fn page() -> Result<PathBuf> {
    let source = file("tests/grafana/draw");
    let read = |names: &[&str]| -> Result<Vec<Vec<u8>>> {
        let read = |name: &&str| fs::read(source.join(name)).with_context(|| (*name).to_owned());
        names.iter().map(read).collect()
    };
    let packages = installed("grafana-ui", &read(&PACKAGES)?, |dir| {
        for name in PACKAGES {
            fs::copy(source.join(name), dir.join(name))?;
        }
        // No package of these needs its script, and none gets to run one.
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").current_dir(dir).args(arguments), "")
            .context("Grafana's components need Node 18 or later with npm (https://nodejs.org)")?;
        Ok(())
    })?;
    let made_of = [read(&PACKAGES)?, read(&SOURCES)?].concat();
    installed("grafana-page", &made_of, |dir| {
        fs::copy(source.join("index.html"), dir.join("index.html"))?;
        let modules = packages.join("node_modules");
        let mut bundle = Command::new(modules.join(".bin/esbuild"));
        bundle
            .current_dir(&source)
            .env("NODE_PATH", &modules)
            .args(["draw.jsx", "--bundle", "--minify", "--jsx=automatic"])
            .args(["--loader:.woff2=dataurl", "--loader:.ttf=empty"])
            .arg("--define:process.env.NODE_ENV=\"production\"")
            .arg(format!("--outdir={}", dir.display()));
        run(&mut bundle, "")?;
        Ok(())
    })
}

/// The directory in the cache that `make` makes of `contents`.
fn installed(
    name: &str,
    contents: &[Vec<u8>],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    install::installed(&format!("{name}-{:016x}", hasher.finish()), make)
}
