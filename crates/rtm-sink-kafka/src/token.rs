//! Tokens for the mechanism OAUTHBEARER: OIDC's client credentials (RFC 6749, section 4.4), by one HTTP request. librdkafka
//! would ask by libcurl, without which it is built.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::client::OAuthToken;
use reqwest::{Client, Url};
use serde_json::{Value, json};

use crate::authorities;

/// How long the token endpoint may take.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long the thread of the callbacks waits for a new token while the old one is good.
const WHILE_GOOD: Duration = Duration::from_secs(1);

/// The longest answer that is read.
const LONGEST: usize = 256 << 10;

/// How long a token of ours lasts that nobody signs, unless the options say otherwise.
const UNSIGNED_SECONDS: u64 = 3600;

const METHOD: &str = "sasl.oauthbearer.method";
const UNSIGNED: &str = "enable.sasl.oauthbearer.unsecure.jwt";
const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const ID: &str = "sasl.oauthbearer.client.id";
const SECRET: &str = "sasl.oauthbearer.client.secret";
const SCOPE: &str = "sasl.oauthbearer.scope";
const CA: &str = "https.ca.location";
const GRANT: &str = "sasl.oauthbearer.grant.type";

/// What OIDC's options are called, with librdkafka's second names: none of them is librdkafka's here.
const OURS: &[(&str, &str)] = &[
    (METHOD, METHOD),
    (URL, URL),
    (ID, ID),
    ("sasl.oauthbearer.client.credentials.client.id", ID),
    (SECRET, SECRET),
    ("sasl.oauthbearer.client.credentials.client.secret", SECRET),
    (SCOPE, SCOPE),
    (CA, CA),
    (GRANT, GRANT),
];

/// An option's value that cannot be used, and why.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) name: String,
    pub(crate) reason: &'static str,
}

/// Who asks for tokens, and where.
#[derive(Clone)]
pub(crate) struct Oidc {
    url: Url,
    id: String,
    secret: String,
    scope: Option<String>,
    ca: Option<String>,
}

impl Oidc {
    /// Whether an option is one of OIDC's, and not for librdkafka.
    pub(crate) fn is_ours(name: &str) -> bool {
        OURS.iter().any(|(ours, _)| *ours == name)
    }

    /// Whether the options ask for OIDC. Then only producers get a token: rdkafka takes none for its clients of other kinds.
    pub(crate) fn is_asked_for(options: &BTreeMap<String, String>) -> bool {
        options.get(METHOD).is_some_and(|method| method == "oidc")
    }

    /// As the options say; nothing where they do not ask for OIDC.
    pub(crate) fn of(options: &BTreeMap<String, String>) -> Result<Option<Oidc>, Unfit> {
        let get = |wanted: &str| {
            let mut names = OURS.iter().filter(|(_, first)| *first == wanted);
            names.find_map(|(name, _)| options.get(*name).cloned())
        };
        let unfit = |name: &str, reason| Unfit {
            name: name.to_owned(),
            reason,
        };
        match get(METHOD).as_deref() {
            Some("oidc") => {}
            None | Some("default") => return Ok(None),
            Some(_) => return Err(unfit(METHOD, "it is `default` or `oidc`")),
        }
        if get(GRANT).is_some_and(|grant| grant != "client_credentials") {
            return Err(unfit(
                GRANT,
                "no other grant than client_credentials is built in",
            ));
        }
        let prefix = "sasl.oauthbearer.";
        let mut names = options.keys();
        if let Some(other) = names.find(|name| name.starts_with(prefix) && !Oidc::is_ours(name)) {
            return Err(unfit(
                other,
                "with OIDC, only the client's id and secret, the scope and the token endpoint are built in",
            ));
        }
        let need = |name: &str| get(name).ok_or_else(|| unfit(name, "OIDC needs it"));
        let url = Url::parse(&need(URL)?).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        Ok(Some(Oidc {
            url: url.ok_or_else(|| unfit(URL, "it is no URL of http or https"))?,
            id: need(ID)?,
            secret: need(SECRET)?,
            scope: get(SCOPE),
            ca: get(CA),
        }))
    }

    /// The endpoint as it may be shown.
    fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        let _ = (url.set_username(""), url.set_password(None));
        format!("the token endpoint {url}")
    }

    async fn fetch(&self) -> Result<Token, String> {
        let body = self.ask().await;
        let body = body.map_err(|error| format!("{}: {error}", self.shown()))?;
        Token::read(&body, &self.id).map_err(|error| format!("{}: {error}", self.shown()))
    }

    async fn ask(&self) -> Result<Value, String> {
        let client = self.client()?;
        let scope = self.scope.as_deref().map_or_else(String::new, |scope| {
            format!("&scope={}", utf8_percent_encode(scope, NON_ALPHANUMERIC))
        });
        let whoami = STANDARD.encode(format!("{}:{}", self.id, self.secret));
        let asked = client
            .post(self.url.clone())
            .header("authorization", format!("Basic {whoami}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(format!("grant_type=client_credentials{scope}"))
            .send();
        let mut response = asked.await.map_err(|error| cause(&error))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST {
                return Err("its answer does not end".to_owned());
            }
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if response.status().is_success() {
            return Ok(body);
        }
        let told = ["error", "error_description"].map(|key| body[key].as_str());
        let told: Vec<&str> = told.into_iter().flatten().collect();
        Err(format!(
            "it answers {} {}",
            response.status(),
            told.join(": ")
        ))
    }

    fn client(&self) -> Result<Client, String> {
        let tls = authorities::trusting(self.ca.as_deref());
        let tls = tls.ok_or_else(|| format!("{CA} cannot be read"))?;
        let client = Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE);
        client.build().map_err(|error| cause(&error))
    }
}

/// The last cause, which is what went wrong.
fn cause(error: &reqwest::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[derive(Clone)]
struct Token {
    text: String,
    principal: String,
    /// Milliseconds since the Unix epoch.
    ends: i64,
}

impl Token {
    /// The token in an endpoint's answer, which lasts for as long as the token itself or else the answer says.
    fn read(answer: &Value, id: &str) -> Result<Token, String> {
        let text = answer["access_token"].as_str();
        let text = text.ok_or("its answer holds no access_token")?.to_owned();
        let claims = text.split('.').nth(1);
        let claims = claims.and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
        let claims = claims.unwrap_or_default();
        let lasts = answer["expires_in"].as_i64();
        let ends = claims["exp"]
            .as_f64()
            .map(|seconds| (seconds * 1000.0) as i64);
        let ends = ends.or(lasts.map(|seconds| now().saturating_add(seconds.saturating_mul(1000))));
        Ok(Token {
            principal: claims["sub"].as_str().unwrap_or(id).to_owned(),
            ends: ends.ok_or("it does not say how long its token lasts")?,
            text,
        })
    }

    fn is_good(&self) -> bool {
        self.ends > now() + 1000
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The tokens of one producer.
pub(crate) struct Tokens {
    kind: Kind,
    state: Mutex<State>,
    answered: Condvar,
}

enum Kind {
    None,
    /// A token that nobody signs, as the option `sasl.oauthbearer.config` says: for tests.
    Unsigned(String),
    Oidc(Box<Oidc>),
}

#[derive(Default)]
struct State {
    current: Option<Token>,
    is_asking: bool,
    answer: Option<Result<Token, String>>,
}

impl Tokens {
    /// For a client with these options, which were found to be fit.
    pub(crate) fn new(options: &BTreeMap<String, String>) -> Arc<Tokens> {
        let get = |name: &str| options.get(name).cloned();
        let kind = match Oidc::of(options) {
            Ok(Some(oidc)) => Kind::Oidc(Box::new(oidc)),
            _ if get(UNSIGNED).as_deref() == Some("true") => {
                Kind::Unsigned(get("sasl.oauthbearer.config").unwrap_or_default())
            }
            _ => Kind::None,
        };
        Arc::new(Tokens {
            kind,
            state: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    /// A token for librdkafka, which asks again when most of the token's time is over. It blocks: the thread of the
    /// callbacks waits for the first token, without which nothing can be published, and hardly for the later ones.
    pub(crate) fn next(self: &Arc<Tokens>) -> Result<OAuthToken, String> {
        let token = match &self.kind {
            Kind::Oidc(oidc) => self.by_oidc(oidc)?,
            Kind::Unsigned(config) => unsigned(config),
            Kind::None => {
                return Err(format!(
                    "no token: set {METHOD} to `oidc`, with {URL}, {ID} and {SECRET}"
                ));
            }
        };
        Ok(OAuthToken {
            token: token.text,
            principal_name: token.principal,
            lifetime_ms: token.ends,
        })
    }

    fn by_oidc(self: &Arc<Tokens>, oidc: &Oidc) -> Result<Token, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What came after its asker had gone may be of no use any more.
        let is_of_use = |answer: &Result<Token, String>| answer.as_ref().is_ok_and(Token::is_good);
        state.answer = state.answer.take().filter(is_of_use);
        if !state.is_asking && state.answer.is_none() {
            // The thread answers only once this lock is free.
            match self.ask(oidc.clone()) {
                Ok(()) => state.is_asking = true,
                Err(error) => state.answer = Some(Err(error.to_string())),
            }
        }
        let good = state.current.clone().filter(Token::is_good);
        let patience = if good.is_some() {
            WHILE_GOOD
        } else {
            2 * DEADLINE
        };
        let waited = self
            .answered
            .wait_timeout_while(state, patience, |state| state.is_asking);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (state.answer.take(), good) {
            (Some(Ok(token)), _) => {
                state.current = Some(token.clone());
                Ok(token)
            }
            (_, Some(good)) => Ok(good),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(format!("{}: no answer", oidc.shown())),
        }
    }

    /// Asks in a thread, which ends by itself.
    fn ask(self: &Arc<Tokens>, oidc: Oidc) -> std::io::Result<()> {
        let tokens = Arc::clone(self);
        let ask = move || {
            let mut asking = Asking {
                tokens,
                answer: None,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            asking.answer = Some(match runtime {
                Ok(runtime) => runtime.block_on(oidc.fetch()),
                Err(error) => Err(error.to_string()),
            });
        };
        let thread = thread::Builder::new().name("kafka-token".into());
        thread.spawn(ask).map(drop)
    }
}

/// A question in progress. It ends by being dropped, also by a panic.
struct Asking {
    tokens: Arc<Tokens>,
    answer: Option<Result<Token, String>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self
            .tokens
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.is_asking = false;
        state.answer = self.answer.take();
        self.tokens.answered.notify_all();
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// As librdkafka makes it of its options `principal`, `scope` and `lifeSeconds`.
fn unsigned(config: &str) -> Token {
    let get = |name: &str| {
        let mut words = config.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let principal = get("principal").unwrap_or_default().to_owned();
    let seconds = get("lifeSeconds").and_then(|seconds| seconds.parse().ok());
    let begins = now() / 1000;
    let ends = begins.saturating_add_unsigned(seconds.unwrap_or(UNSIGNED_SECONDS));
    let scope: Vec<&str> = get("scope")
        .into_iter()
        .flat_map(|all| all.split(','))
        .collect();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "alg": "none" }));
    let claims = part(json!({ "sub": principal, "iat": begins, "exp": ends, "scope": scope }));
    Token {
        text: format!("{head}.{claims}."),
        principal,
        ends: ends.saturating_mul(1000),
    }
}

#[cfg(test)]
mod tests;
