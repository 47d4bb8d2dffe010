//! Agora's console API, which takes the same key and secret as the event API and deletes nothing: whether a key is right,
//! and whose App ID it is (Agora's "Get all projects", `GET /dev/v1/projects`).

use reqwest::Url;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::{BoxError, Ending, FetchError, Region, Source};

/// The console API outside mainland China, and inside.
const WORLD: (&str, &str) = ("agora.io", "https://api.agora.io/");
const CHINA: (&str, &str) = ("sd-rtn.com", "https://api.sd-rtn.com/");

/// The projects of the account that a key belongs to.
#[derive(Debug, Clone)]
pub struct Projects(Vec<Project>);

/// One project. What else Agora tells of it, such as its certificate, is a secret, and is not kept.
#[derive(Debug, Clone, Deserialize)]
pub struct Project {
    /// The App ID.
    #[serde(rename = "vendor_key")]
    pub app_id: String,
    /// 0 is disabled, 1 enabled.
    #[serde(default)]
    status: Option<i64>,
}

/// Why the console does not say whose App ID it is.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Agora's console knows keys and no tokens.
    #[error("a token cannot be tried: Agora's console takes a key and a secret only")]
    Token,
    /// The key, or its secret, is wrong.
    #[error("{host} refuses the key or its secret (status 401)")]
    Refused {
        /// Who was asked.
        host: String,
    },
    /// Another answer, such as that of a host that does not have the console API.
    #[error("{host} does not say whether they are right (status {status})")]
    Status {
        /// Who was asked.
        host: String,
        /// The status.
        status: u16,
    },
    /// A body that lists no projects.
    #[error("{host} answers with something else than projects")]
    Body {
        /// Who was asked.
        host: String,
    },
    /// No answer.
    #[error("{host} cannot be asked")]
    Away {
        /// Who was asked.
        host: String,
        /// Why.
        #[source]
        source: BoxError,
    },
}

#[derive(Deserialize)]
struct Body {
    projects: Vec<Project>,
}

impl Projects {
    /// The project with this App ID.
    #[must_use]
    pub fn find(&self, app_id: &str) -> Option<&Project> {
        self.0.iter().find(|project| project.app_id == app_id)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Project {
    /// Whether the console has it disabled.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.status == Some(0)
    }
}

impl Source {
    /// The projects of the account that the key belongs to, from Agora's console. Reads no event. Agora allows 10 such
    /// requests a second for an account.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Refused`] where the key is wrong; the others say why nobody knows.
    pub async fn projects(&self) -> Result<Projects, ConsoleError> {
        if !self.credentials.are_a_key() {
            return Err(ConsoleError::Token);
        }
        let deadline = Instant::now() + self.deadline;
        let region = asked(self.rings.iter().map(|ring| &*ring.region));
        let url = url(region);
        let host = url.host_str().unwrap_or_default().to_owned();
        let away = |source| ConsoleError::Away {
            host: host.clone(),
            source,
        };
        let client = region.map_or(&self.client, |region| self.client_for(region));
        let headers = self.credentials.headers().await;
        let sent = client.get(url).headers(headers).send();
        let response = match timeout_at(deadline, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let error = FetchError::from_client(error);
                return Err(away(error.source.unwrap_or_else(|| error.reason.into())));
            }
            Err(elapsed) => return Err(away(elapsed.into())),
        };
        let status = response.status().as_u16();
        match status {
            200 => {}
            401 => return Err(ConsoleError::Refused { host }),
            status => return Err(ConsoleError::Status { host, status }),
        }
        let (body, ending) = self.receive(response, deadline).await;
        match serde_json::from_slice::<Body>(&body) {
            Ok(body) if matches!(ending, Ending::Closed) => Ok(Projects(body.projects)),
            _ => Err(ConsoleError::Body { host }),
        }
    }
}

/// The first region that is not Agora's own, such as a proxy in front of it or the simulator: it is asked for the console
/// API too, so that the key goes to nobody who does not get it anyway.
fn asked<'a>(mut regions: impl Iterator<Item = &'a Region> + Clone) -> Option<&'a Region> {
    let mut all = regions.clone();
    regions
        .find(|region| !is_of(region, WORLD.0) && !is_of(region, CHINA.0))
        // Regions in mainland China only are asked there.
        .or_else(|| all.find(|region| is_of(region, WORLD.0)))
}

fn url(region: Option<&Region>) -> Url {
    let base = match region {
        None => CHINA.1,
        Some(region) if is_of(region, WORLD.0) => WORLD.1,
        Some(region) => region.base_url().as_str(),
    };
    // They are URLs, so that this cannot fail.
    let mut url = Url::parse(base).unwrap_or_else(|_| unreachable!("{base} is a URL"));
    let path = format!("{}/dev/v1/projects", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

fn is_of(region: &Region, domain: &str) -> bool {
    let host = region.base_url().host_str().unwrap_or_default();
    let rest = host.strip_suffix(domain);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests;
