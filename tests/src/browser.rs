//! Debian's Chromium without a window, driven through its DevTools protocol over a pipe.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long Chromium may take for an answer; its start is part of the first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Chromium talks on the descriptors 3 and 4, and ends when they close, which they do however the tests end. Its sandbox
/// refuses root; it opens nothing here but the bridge's page.
const SHELL: &str = r#"
if [ "$(id -u)" -eq 0 ]; then set -- --no-sandbox "$@"; fi
exec chromium "$@" 3<&0 4>&1 </dev/null >"$LOG" 2>&1
"#;

/// A browser with one tab.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    next: u64,
    session: Option<String>,
    seen: Seen,
    _profile: TempDir,
}

/// What the tab did.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The URLs that it asked for.
    pub requests: Vec<String>,
    /// Exceptions, and what it said to the console as an error: violations of the policy are such.
    pub errors: Vec<String>,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Of the screen, in pixels.
    pub width: u32,
    /// Of the screen, in pixels.
    pub height: u32,
    /// The colour scheme that the person prefers.
    pub dark: bool,
}

impl Browser {
    /// Starts Chromium and opens `url`.
    ///
    /// # Errors
    ///
    /// With the package's name where it is not installed; when it does not answer.
    pub async fn open(url: &str) -> Result<Browser> {
        match std::process::Command::new("chromium")
            .arg("--version")
            .output()
        {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "`chromium` is not there: install Debian's package `chromium` (apt-get install chromium)"
            ),
            Err(error) => return Err(error).context("run chromium"),
            Ok(_) => {}
        }
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SHELL, "sh"])
            .args(["--headless", "--remote-debugging-pipe", "--disable-gpu"])
            // Containers have a small /dev/shm.
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            // Its own calls home are no business of a test.
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--disable-sync", "--no-proxy-server"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("LOG", profile.path().join("chromium.log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("start sh")?;
        let to = child.stdin.take().context("a pipe")?;
        let from = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut browser = Browser {
            child,
            to,
            from,
            next: 0,
            session: None,
            seen: Seen::default(),
            _profile: profile,
        };
        let target = browser
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach).await?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        browser.call("Page.navigate", json!({ "url": url })).await?;
        Ok(browser)
    }

    /// Calls a method of the protocol and gives its result.
    ///
    /// # Errors
    ///
    /// When the method fails, or Chromium has ended or does not answer.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to
            .write_all(&bytes)
            .await
            .context("chromium has ended")?;
        let answer = tokio::time::timeout(PATIENCE, self.answer()).await;
        let answer = answer.with_context(|| format!("no answer to {method}"))??;
        match answer.get("error") {
            Some(error) => bail!("{method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }

    async fn answer(&mut self) -> Result<Value> {
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).await?;
            if bytes.pop() != Some(0) {
                bail!("chromium has ended: {:?}", self.child.try_wait()?);
            }
            let message: Value = serde_json::from_slice(&bytes)?;
            if message["id"] == self.next {
                return Ok(message);
            }
            self.seen.add(&message);
        }
    }

    /// The value of a script's expression.
    ///
    /// # Errors
    ///
    /// When it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters).await?;
        if let Some(thrown) = result.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(result["result"]["value"].clone())
    }

    /// The text of the first element of a selector, as it is seen; empty where there is none.
    ///
    /// # Errors
    ///
    /// When Chromium has ended.
    pub async fn text(&mut self, selector: &str) -> Result<String> {
        let expression = format!(
            "document.querySelector({})?.innerText ?? \"\"",
            json!(selector)
        );
        let text = self.evaluate(&expression).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Presses a key: a name of the DOM's, with its number and the text that it makes.
    ///
    /// # Errors
    ///
    /// When Chromium has ended.
    pub async fn press(&mut self, key: &str, code: u32, text: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// Looks at the page in another way.
    ///
    /// # Errors
    ///
    /// When Chromium has ended.
    pub async fn view(&mut self, view: View) -> Result<()> {
        let View {
            width,
            height,
            dark,
        } = view;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Writes a picture of what is on the screen, or of the whole page.
    ///
    /// # Errors
    ///
    /// When it cannot be taken or written.
    pub async fn screenshot(&mut self, file: &Path, whole: bool) -> Result<()> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": whole });
        let taken = self.call("Page.captureScreenshot", parameters).await?;
        let bytes = STANDARD.decode(taken["data"].as_str().unwrap_or_default())?;
        Ok(std::fs::write(file, bytes)?)
    }

    /// What the tab has done up to now.
    ///
    /// # Errors
    ///
    /// When Chromium has ended.
    pub async fn seen(&mut self) -> Result<Seen> {
        // Whatever came before the answer to this is read then.
        self.evaluate("0").await?;
        Ok(self.seen.clone())
    }
}

impl Seen {
    fn add(&mut self, message: &Value) {
        let of = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = of["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            "Runtime.exceptionThrown" => self.errors.push(of["exceptionDetails"].to_string()),
            "Log.entryAdded" if of["entry"]["level"] == "error" => {
                self.errors.push(of["entry"].to_string());
            }
            _ => {}
        }
    }
}
