//! What systemd is told: `sd_notify` and its watchdog, over the datagram socket that `NOTIFY_SOCKET` names.
//!
//! The protocol is datagrams of `KEY=value` lines (sd_notify(3)). They are sent by hand, since `sd-notify` 0.5 takes the
//! abstract name `@name` for a file's, and its socket blocks while the service manager does not read.
//! Without the variable nothing is sent. What cannot be sent is given up: nothing here may hold the bridge up.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use rtm_engine::status::State;

use crate::admin::Listening;

/// How often the status line is told, unless the watchdog asks for more.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn from_env() -> Notify {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notify::default();
        };
        match connect(&name) {
            Ok(socket) => Notify {
                socket: Some(socket),
                watchdog: watchdog(),
            },
            Err(error) => {
                warn!(
                    error = crate::chain(&error),
                    "cannot tell the service manager anything through NOTIFY_SOCKET"
                );
                Notify::default()
            }
        }
    }

    /// Everything runs, or runs again after a reload.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is read again; [`ready`](Notify::ready) says that this is over.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping: storing what is in flight, publishing what waits");
    }

    /// Tells the status line, and the watchdog that the runtime makes progress, for ever. Whether brokers or Agora
    /// answer is no matter of the watchdog's: a restart would repair neither.
    /// Where there is no admin endpoint, this is the place that says so.
    pub(crate) async fn keep_telling(&self, state: &OnceLock<Arc<State>>, admin: &Listening) {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let half = self.watchdog.map(|watchdog| watchdog / 2);
        let interval = half.unwrap_or(STATUS_INTERVAL).min(STATUS_INTERVAL);
        loop {
            // By a task of its own, which goes through the queues that everything else goes through.
            let progressed = tokio::spawn(tokio::task::yield_now()).await.is_ok();
            let beat = progressed && half.is_some();
            if let Some(state) = state.get() {
                let beat = if beat { "\nWATCHDOG=1" } else { "" };
                let line = state.status_line();
                self.send(&format!("STATUS={line}{}{beat}", without(admin)));
            } else if beat {
                self.send("WATCHDOG=1");
            }
            tokio::time::sleep(interval).await;
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// What the status line says of an admin endpoint that is not there.
fn without(admin: &Listening) -> String {
    match &*admin.borrow() {
        Some(Err(error)) => {
            let error = error.replace(char::is_control, " ");
            format!("; no admin endpoint: {error}")
        }
        _ => String::new(),
    }
}

fn connect(name: &OsString) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// How long the service manager waits for a sign of life from this process.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0)?;
    Some(Duration::from_micros(micros))
}
