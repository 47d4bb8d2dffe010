//! The simulator without sockets: what would come over the wire, for a client that simulates the wire itself.

use std::sync::Arc;
use std::time::Duration;

use crate::agora::{Agora, PageId};
use crate::clock::Clock;
use crate::config::{Faults, InvalidSetting, Load, SimAuth, SimConfig};
use crate::endpoint;
use crate::http::{Left, Reply, Request};
use crate::ledger::{Ledger, SimStats, Stream};

/// A stand-in for Agora that is called, and not connected to. Cheap to clone; clones are one server.
///
/// It answers with the code that [`Simulator`](crate::Simulator) puts behind its socket: rings, rate limit, faults and
/// ledger are the same. All its time is the [`Clock`]'s and tokio's, and all its chance is the seed's, so that on one
/// thread with tokio's paused time two runs that ask the same at the same times see the same, to the byte.
///
/// There is no task: what is due to arrive since the last call arrives, in steps of 5 ms, before anything is read,
/// changed or counted. `listen` and `allow_any_address` of the configuration mean nothing here.
#[derive(Debug, Clone)]
pub struct InProcess {
    pub(crate) agora: Arc<Agora>,
}

/// What a request gets, and what the ledger has to learn from the client.
#[derive(Debug)]
#[must_use = "the ledger has to be told how much of it arrived"]
pub struct Exchange {
    agora: Arc<Agora>,
    reply: Option<Reply>,
    body: Vec<u8>,
    page: Option<PageId>,
}

/// More of a body than any client takes: what is longer is not made.
const LONGEST: usize = 4 << 20;

/// How the server leaves a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireEnd {
    /// The body is all there, as HTTP says.
    Whole,
    /// The connection is closed, in the middle of the body or where only the close tells its end.
    Closed,
    /// The connection is reset in the middle of the body; what of it the client has seen is the network's to decide.
    Reset,
    /// The connection stays open, and nothing more comes.
    Stalled,
}

impl InProcess {
    /// A server whose time is `clock`.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] when a value of the configuration makes no sense.
    pub fn new(config: &SimConfig, clock: Clock) -> Result<InProcess, InvalidSetting> {
        config.check()?;
        let agora = Arc::new(Agora::new(config, clock));
        Ok(InProcess { agora })
    }

    /// A `GET` that arrives now, with this path and these headers. Waits out what the server takes for it, before and
    /// after the read.
    ///
    /// A future that is dropped has been counted, and may have read: a client that gives up lets it run on, in a task of
    /// its own, as a server would.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Exchange {
        let request = Request::get(path, headers);
        let endpoint::Answer { reply, page } = endpoint::answer(&self.agora, &request).await;
        let exchange = Exchange {
            agora: Arc::clone(&self.agora),
            body: reply.as_ref().map_or_else(Vec::new, |reply| {
                reply.pieces(LONGEST).collect::<Vec<_>>().concat()
            }),
            reply,
            page,
        };
        if let (Some(page), Some(_)) = (page, &exchange.reply) {
            self.agora.begun(page);
        }
        exchange
    }

    /// Lets arrive what is due by now, which happens before every read by itself.
    pub fn tick(&self) {
        self.agora.catch_up();
    }

    /// What time it is at the server.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.agora.clock()
    }

    /// Stops the generation of events. What is in the rings stays there to be read.
    pub fn stop_generating(&self) {
        self.agora.stop_generating();
    }

    /// Events arrive as `load` says from now on, even if they had been stopped. Values are taken as they are: see
    /// [`Load::check`].
    pub fn set_load(&self, load: Load) {
        self.agora.set_load(load);
    }

    /// What goes wrong from now on. Values are taken as they are: see [`Faults::check`].
    pub fn set_faults(&self, faults: Faults) {
        self.agora.set_faults(faults);
    }

    /// Accepts other credentials from now on, and those no more that were accepted.
    ///
    /// # Panics
    ///
    /// If there is no such App ID: a mistake in the caller's test.
    pub fn set_auth(&self, app_id: &str, auth: SimAuth) {
        assert!(self.agora.set_auth(app_id, auth), "no App ID {app_id:?}");
    }

    /// Puts `events`, raw JSON text, into a ring, byte for byte and in order.
    ///
    /// # Panics
    ///
    /// If there is no such App ID or region: a mistake in the caller's test.
    pub fn push(&self, app_id: &str, region: &str, stream: Stream, events: &[&str]) {
        if let Err(error) = self
            .agora
            .push(app_id, region, stream, events.iter().copied())
        {
            panic!("{error}");
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn stats(&self) -> SimStats {
        self.agora.stats()
    }

    /// Everything handed out so far. The events are shared with the simulator, not copied.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.agora.ledger()
    }
}

impl Exchange {
    /// The status; `None` if the connection is closed without a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.reply.as_ref().map(|reply| reply.status)
    }

    /// The headers that say something, in no particular case: those of the transport are left out.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.reply.iter().flat_map(|reply| &reply.headers);
        headers.map(|(name, value)| (&**name, &**value))
    }

    /// The body, as far as the server sends it, at most its first 4 MiB.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// How long the body takes from its first byte to its last, coming evenly.
    #[must_use]
    pub fn drip(&self) -> Option<Duration> {
        self.reply.as_ref()?.drip
    }

    /// How the server leaves it.
    #[must_use]
    pub fn end(&self) -> WireEnd {
        match &self.reply {
            Some(reply) if reply.tells_its_end() => WireEnd::Whole,
            Some(reply) if reply.cut.is_some() && reply.left == Left::Reset => WireEnd::Reset,
            Some(reply) if reply.cut.is_some() && reply.left == Left::Open => WireEnd::Stalled,
            _ => WireEnd::Closed,
        }
    }

    /// Tells the ledger that the client has got the first `body_bytes` of [`body`](Exchange::body), and lives: if that
    /// is not all, the network cut it. An exchange that is dropped instead never arrived.
    pub fn received(mut self, body_bytes: usize) {
        if let Some(page) = self.page.take() {
            if body_bytes < self.body().len() {
                self.agora.broken_off(page, body_bytes);
            }
            self.agora.finished(page);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            self.agora.broken_off(page, 0);
        }
    }
}
