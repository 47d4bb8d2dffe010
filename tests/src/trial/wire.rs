//! What lies between the bridge and the simulator: a relay that delays requests and responses, and that answers some
//! of them itself, with what an evil or broken gateway would send.
//!
//! A request that the relay answers never reaches the simulator, so that nothing is deleted for it: the ledger stays
//! the truth. Responses that are cut after a read are the simulator's own [`rtm_sim::Faults`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the relay does to a share of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evil {
    /// The connection is reset instead of an answer.
    ResetBeforeHeaders,
    /// The connection is reset after the headers.
    ResetAfterHeaders,
    /// Nothing is answered until the client gives up.
    StallBeforeHeaders,
    /// The headers and a part of the body come, and then nothing until the client gives up.
    StallAfterHeaders,
    /// A redirect to a place that must never be asked for.
    Redirect,
    /// 429 with `Retry-After` in seconds.
    RetryAfterSeconds,
    /// 429 with `Retry-After` as a date.
    RetryAfterDate,
    /// 429 with a `Retry-After` that is none.
    RetryAfterNonsense,
    /// A quarter of a GiB of zeros, gzipped though nobody asked for it.
    Bomb,
    /// A body that comes a byte at a time, and not to an end.
    Drip,
    /// 64 MiB of a JSON document.
    Huge,
}

impl Evil {
    /// All of them.
    pub const ALL: [Evil; 11] = [
        Evil::ResetBeforeHeaders,
        Evil::ResetAfterHeaders,
        Evil::StallBeforeHeaders,
        Evil::StallAfterHeaders,
        Evil::Redirect,
        Evil::RetryAfterSeconds,
        Evil::RetryAfterDate,
        Evil::RetryAfterNonsense,
        Evil::Bomb,
        Evil::Drip,
        Evil::Huge,
    ];
}

/// What the relay does from now on. By default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// What it does to some of the requests, and the share of them, 0 to 1.
    pub evil: Option<(Evil, f64)>,
    /// The least and the most that it delays a request, and again its response, in milliseconds. At most
    /// [`MAX_DELAY_MS`].
    pub delay_ms: [u64; 2],
}

/// More would break the bridge's promise after a crash, honestly: it waits for a second and a quarter, so that a request
/// of its predecessor may be under way for a quarter of a second.
pub const MAX_DELAY_MS: u64 = 200;

/// A running relay. It ends when this is dropped.
#[derive(Debug)]
pub struct Wire {
    /// `http://host:port`, to stand where the simulator's stood.
    pub url: String,
    weather: watch::Sender<Weather>,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    own_url: String,
    bomb: Vec<u8>,
    rng: Mutex<fastrand::Rng>,
    struck: AtomicU64,
    followed: AtomicU64,
}

impl Wire {
    /// Starts a relay to `upstream`, `http://host:port`, on a free port.
    ///
    /// # Errors
    ///
    /// When no port can be had, or there is no gzip to make a bomb with.
    pub async fn start(upstream: &str, seed: u64) -> Result<Wire> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let upstream = upstream
            .strip_prefix("http://")
            .context("the relay speaks plain HTTP")?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            own_url: url.clone(),
            bomb: bomb().await?,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            struck: AtomicU64::new(0),
            followed: AtomicU64::new(0),
        });
        let (weather, watched) = watch::channel(Weather::default());
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&shared), watched));
        Ok(Wire {
            url,
            weather,
            shared,
            _task: task,
        })
    }

    /// What it does from now on; stalls and drips that are not part of it end.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How many requests it has answered itself.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// How many of its redirects were followed: none may be.
    #[must_use]
    pub fn followed(&self) -> u64 {
        self.shared.followed.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let (shared, weather) = (Arc::clone(&shared), weather.clone());
                connections.spawn(async move {
                    // Whatever ends a connection, the two ends of it see.
                    let _ = Box::pin(relay(socket, &shared, weather)).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. The client sends a request only after it has the whole answer to the one before, so that whatever
/// comes from upstream answers the last request.
async fn relay(
    client: TcpStream,
    shared: &Shared,
    mut weather: watch::Receiver<Weather>,
) -> Result<()> {
    client.set_nodelay(true)?;
    let upstream = TcpStream::connect(&shared.upstream).await?;
    upstream.set_nodelay(true)?;
    let (mut from_upstream, mut to_upstream) = upstream.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut request, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let mut piece = [0; 4096];
        tokio::select! {
            read = from_client.read(&mut piece) => {
                let length = read?;
                ensure!(length > 0, "the client has gone");
                request.extend_from_slice(&piece[..length]);
                if !request.ends_with(b"\r\n\r\n") {
                    continue;
                }
                if request.starts_with(b"GET /redirected") {
                    shared.followed.fetch_add(1, Ordering::Relaxed);
                }
                let now = *weather.borrow();
                if let Some((evil, share)) = now.evil
                    && shared.roll() < share
                {
                    shared.struck.fetch_add(1, Ordering::Relaxed);
                    let mut gone = [0; 1];
                    return tokio::select! {
                        done = strike(evil, shared, &mut to_client, &mut weather) => {
                            if matches!(evil, Evil::ResetBeforeHeaders | Evil::ResetAfterHeaders) {
                                to_client.as_ref().set_zero_linger()?;
                            }
                            done
                        }
                        _ = from_client.read(&mut gone) => Ok(()),
                    };
                }
                shared.delay(now).await;
                to_upstream.write_all(&request).await?;
                request.clear();
            }
            read = from_upstream.read(&mut chunk) => {
                let length = read?;
                ensure!(length > 0, "the simulator has hung up");
                let now = *weather.borrow();
                shared.delay(now).await;
                to_client.write_all(&chunk[..length]).await?;
            }
        }
    }
}

impl Shared {
    fn roll(&self) -> f64 {
        self.rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .f64()
    }

    async fn delay(&self, weather: Weather) {
        let [least, most] = weather.delay_ms;
        if most > 0 {
            let ms = self
                .rng
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .u64(least..=most);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

/// Answers a request by itself; the connection ends after that.
async fn strike(
    evil: Evil,
    shared: &Shared,
    to: &mut OwnedWriteHalf,
    weather: &mut watch::Receiver<Weather>,
) -> Result<()> {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    const BEGIN: &[u8] = br#"{"result":"success","events":[{"user_id":""#;
    let refusal = |retry_after: &str| {
        format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let head = |length: usize| format!("{HEAD}Content-Length: {length}\r\n\r\n");
    match evil {
        Evil::ResetBeforeHeaders => {}
        Evil::ResetAfterHeaders => {
            to.write_all(head(1_000).as_bytes()).await?;
            // Else the reset overtakes them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Evil::StallBeforeHeaders => still(evil, weather).await,
        Evil::StallAfterHeaders => {
            to.write_all(head(1_000).as_bytes()).await?;
            to.write_all(BEGIN).await?;
            still(evil, weather).await;
        }
        Evil::Redirect => {
            let text = format!(
                "HTTP/1.1 302 Found\r\nLocation: {}/redirected\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                shared.own_url
            );
            to.write_all(text.as_bytes()).await?;
        }
        Evil::RetryAfterSeconds => to.write_all(refusal("2").as_bytes()).await?,
        Evil::RetryAfterDate => {
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
            let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            to.write_all(refusal(&date).as_bytes()).await?;
        }
        Evil::RetryAfterNonsense => {
            to.write_all(refusal("-99999999999999999999").as_bytes())
                .await?;
        }
        Evil::Bomb => {
            let text = format!(
                "{HEAD}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                shared.bomb.len()
            );
            to.write_all(text.as_bytes()).await?;
            to.write_all(&shared.bomb).await?;
        }
        Evil::Drip => {
            to.write_all(head(1 << 20).as_bytes()).await?;
            to.write_all(BEGIN).await?;
            while weather.borrow().evil.is_some_and(|(now, _)| now == evil) {
                to.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Evil::Huge => {
            const BYTES: usize = 64 << 20;
            to.write_all(head(BYTES).as_bytes()).await?;
            to.write_all(BEGIN).await?;
            // No event in it ever ends: nothing may come out of it.
            let filling = vec![b'x'; 64 << 10];
            let mut left = BYTES - BEGIN.len();
            while left > 0 {
                let length = left.min(filling.len());
                to.write_all(&filling[..length]).await?;
                left -= length;
            }
        }
    }
    Ok(())
}

/// Waits until this evil is over.
async fn still(evil: Evil, weather: &mut watch::Receiver<Weather>) {
    let _ = weather
        .wait_for(|weather| weather.evil.is_none_or(|(now, _)| now != evil))
        .await;
}

/// A quarter of a GiB of zeros, gzipped.
async fn bomb() -> Result<Vec<u8>> {
    let output = tokio::process::Command::new("sh")
        .args(["-c", "head -c 268435456 /dev/zero | gzip -1"])
        .output()
        .await
        .context("start sh")?;
    if !output.status.success() || output.stdout.len() < 100_000 {
        bail!("gzip made no bomb: is it installed?");
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds: what is not struck is passed on whole, what is struck never reaches the other side, and each evil looks to
    /// a client as it says.
    #[tokio::test]
    async fn passes_on_or_strikes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&served);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    while matches!(socket.read(&mut [0; 4096]).await, Ok(length) if length > 0) {
                        counted.fetch_add(1, Ordering::Relaxed);
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        socket.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        let wire = Wire::start(&upstream, 1).await.unwrap();
        let client = crate::bridge::http_client().unwrap();
        let client_of = || client.get(&wire.url).timeout(Duration::from_millis(700));
        for _ in 0..2 {
            assert_eq!(
                client_of().send().await.unwrap().text().await.unwrap(),
                "ok"
            );
        }
        for evil in Evil::ALL {
            wire.set(Weather {
                evil: Some((evil, 1.0)),
                ..Weather::default()
            });
            let answer = client_of().send().await;
            let what = match answer {
                Err(error) if error.is_timeout() => "stalled".to_owned(),
                Err(_) => "failed".to_owned(),
                Ok(response) => {
                    let status = response.status().as_u16();
                    match response.bytes().await {
                        Ok(body) => format!("{status}, {} bytes", body.len() >> 10),
                        Err(_) => format!("{status}, broken"),
                    }
                }
            };
            let expected: &[&str] = match evil {
                Evil::ResetBeforeHeaders => &["failed"],
                Evil::ResetAfterHeaders | Evil::StallAfterHeaders | Evil::Drip => &["200, broken"],
                Evil::StallBeforeHeaders => &["stalled"],
                // The client of the tests follows redirects, and the place is no better.
                Evil::Redirect => &["failed"],
                Evil::RetryAfterSeconds | Evil::RetryAfterDate | Evil::RetryAfterNonsense => {
                    &["429, 0 bytes"]
                }
                Evil::Bomb => &["200, 1137 bytes", "200, 1142 bytes"],
                Evil::Huge => &["200, 65536 bytes", "200, broken"],
            };
            assert!(
                expected.contains(&what.as_str())
                    || (evil == Evil::Bomb && what.starts_with("200")),
                "{evil:?}: {what}"
            );
        }
        assert_eq!(served.load(Ordering::Relaxed), 2);
        assert!(wire.followed() > 0, "this client does follow");
        wire.set(Weather {
            evil: None,
            delay_ms: [50, 60],
        });
        let began = std::time::Instant::now();
        assert_eq!(
            client_of().send().await.unwrap().text().await.unwrap(),
            "ok"
        );
        assert!(began.elapsed() >= Duration::from_millis(100));
    }
}
