//! `rtm-bridge top`: a running bridge, in a terminal.

mod status;
mod view;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use ratatui::crossterm::event::{self, KeyCode, KeyModifiers};
use ratatui::crossterm::style::Colored;
use ratatui::style::{Color, Style};

use super::configuration::{ConfigArgs, DEFAULT_CONFIG};
use super::process::{duration, refuse, runtime, stop_on_signals};
use crate::config::{AdminConfig, Config};
use status::{Access, Asker, Status};
use view::{Seen, plain};

/// Rates are over this many seconds, as far as there are answers: one poll more or less is no change.
const WINDOW_SECONDS: f64 = 10.0;

/// How soon a key is heard and a new answer shown.
const TICK: Duration = Duration::from_millis(100);

/// Between the two answers that plain output takes.
const ONCE_APART: Duration = Duration::from_secs(2);

/// Watch a running bridge in the terminal: losses, rings, request budget, journal, sinks
///
/// Shows what a running bridge does, from its /status.json: what goes on in words, worst first; each sink's lag and last
/// confirmation; the journal; the request budget; rings with their rates, the age of the last poll and the gap between two.
///
/// q, Esc and Ctrl-C end it. Without a terminal, or with --once, it prints one page and ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
NO_COLOR=1 takes the colours away.

Examples:
  rtm-bridge top --config /etc/rtm-bridge/rtm-bridge.toml
  rtm-bridge top --url http://bridge-1:9464
  rtm-bridge top --url https://bridge-1:9464 --token-file token --ca-file ca.pem
  watch -n 10 rtm-bridge top --once --url http://bridge-1:9464")]
pub(super) struct TopArgs {
    /// The admin address, such as http://127.0.0.1:9464 [default: admin.listen of the configuration, or that]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file with the token, if the endpoint asks for one [default without --url: admin.token_file]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust beside the system's, in PEM [default without --url: admin.tls.cert_file]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// Print one page, and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let sensible = Duration::from_millis(200)..=Duration::from_secs(60);
    let interval = duration(text).ok().filter(|time| sensible.contains(time));
    interval.ok_or_else(|| "expected 200ms to 60s".to_owned())
}

pub(super) fn top(args: &TopArgs) -> anyhow::Result<bool> {
    let (url, access) = endpoint(args)?;
    let asker = Asker::new(&url, access).map_err(refuse)?;
    if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return once(&asker);
    }
    let runtime = runtime()?;
    let stop = runtime.block_on(async { stop_on_signals() })?;
    let (tx, answers) = mpsc::channel();
    let (interval, shown) = (args.interval, asker.url().to_owned());
    runtime.spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if tx.send(asker.ask().await).is_err() {
                return;
            }
        }
    });
    let mut terminal = ratatui::try_init()?;
    let ended = watch(&mut terminal, &shown, &answers, || stop.is_cancelled());
    ratatui::restore();
    // A request under way has no reason to hold us.
    runtime.shutdown_background();
    ended.map(|()| true)
}

/// What is asked, and how. What the configuration says of its own endpoint goes to no other.
fn endpoint(args: &TopArgs) -> anyhow::Result<(String, Access)> {
    let given = Access {
        token_file: args.token_file.clone(),
        ca_file: args.ca_file.clone(),
    };
    if let Some(url) = &args.url {
        return Ok((url.clone(), given));
    }
    let place = &args.config.config;
    let admin = match Config::admin(place) {
        Ok(admin) => admin,
        // Where nobody has named a configuration, a bridge may run without one here.
        Err(_) if place.as_os_str() == DEFAULT_CONFIG && !place.exists() => AdminConfig::default(),
        Err(error) => return Err(refuse(error)),
    };
    if admin.listen.port() == 0 {
        return Err(refuse(
            "admin.listen has the port 0: the log of the bridge says which it has taken; name it with --url",
        ));
    }
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let access = Access {
        token_file: given.token_file.or(admin.token_file),
        ca_file: given.ca_file.or(admin.tls.map(|tls| tls.cert_file)),
    };
    let url = format!("{scheme}://{}", admin.listen.as_reached_here());
    Ok((url, access))
}

/// One page, for people who look at it later and for programs that keep it.
fn once(asker: &Asker) -> anyhow::Result<bool> {
    let answers = runtime()?.block_on(async {
        let first = asker.ask().await?;
        tokio::time::sleep(ONCE_APART).await;
        Ok::<_, String>([first, asker.ask().await?])
    });
    let [before, now] =
        answers.map_err(|error| anyhow!("no answer from {}: {error}", asker.url()))?;
    let seen = Seen {
        url: asker.url(),
        known: Some((&before, &now)),
        away: None,
    };
    print!("{}", plain(&seen));
    Ok(true)
}

/// Draws until it is told to end.
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    url: &str,
    answers: &Receiver<Result<Status, String>>,
    ended: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let mut kept: VecDeque<Status> = VecDeque::new();
    let uptime = |status: &Status| status.report.now.uptime_seconds;
    let mut away: Option<(Instant, String)> = None;
    while !ended() {
        for answer in answers.try_iter() {
            match answer {
                Ok(now) => {
                    away = None;
                    // A bridge that was started again begins to count anew.
                    if kept.back().is_some_and(|last| uptime(last) > uptime(&now)) {
                        kept.clear();
                    }
                    let begin = uptime(&now) - WINDOW_SECONDS;
                    kept.push_back(now);
                    while kept.len() > 2 && uptime(&kept[1]) <= begin {
                        kept.pop_front();
                    }
                }
                Err(error) => {
                    let since = away.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                    away = Some((since, error));
                }
            }
        }
        let seen = Seen {
            url,
            known: kept.front().zip(kept.back()),
            away: away
                .as_ref()
                .map(|(since, error)| (since.elapsed(), error.as_str())),
        };
        terminal.draw(|frame| {
            let area = frame.area();
            frame.render_widget(&seen, area);
            // crossterm takes colours away for NO_COLOR, and what is bold with them.
            if Colored::ansi_color_disabled_memoized() {
                let uncoloured = Style::new().fg(Color::Reset);
                frame.buffer_mut().set_style(area, uncoloured);
            }
        })?;
        if event::poll(TICK)?
            && let Some(key) = event::read()?.as_key_press_event()
        {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if control => return Ok(()),
                _ => {}
            }
        }
    }
    Ok(())
}
