//! Why a producer is of no more use, in words that say what to repair.

use rdkafka::error::RDKafkaErrorCode;

/// Why a producer is of no more use.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Failure {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) reason: String,
}

/// What OpenSSL says of a broker's certificate that it does not accept.
const REFUSED: &str = "certificate verify failed";

/// What a broker says of an authentication at a listener without SASL.
const NO_SASL: &str = "Request not valid in current SASL state";

/// What OpenSSL says when the broker ends the handshake.
const ALERT: &str = "SSL alert number";

/// What may be wrong with a certificate that OpenSSL refuses: it does not say what is.
pub(crate) const UNSURE: &str =
    "its authority is not trusted, or it is another host's, or it has expired";

impl Failure {
    /// The failure as an operator should read it. Where the broker's certificate is refused, librdkafka guesses at a
    /// missing authority, also where it has expired or is another host's; `check` can ask the broker what it is.
    pub(crate) fn explained(self) -> Failure {
        self.explained_by(&format!("{UNSURE}; `check --connect` tells which"))
    }

    /// As [`explained`](Failure::explained), where it is known `why` the broker's certificate is refused.
    pub(crate) fn explained_by(mut self, why: &str) -> Failure {
        if let Some(broker) = self.refused_broker() {
            self.reason = format!("{broker}: the broker's certificate is refused: {why}");
        } else if self.code == RDKafkaErrorCode::SSL && is_alert(&self.reason) {
            self.reason +=
                ": the broker refuses our certificate, or asks for one (ssl.certificate.location)";
        } else if self.reason.contains(NO_SASL) {
            self.reason +=
                ": the listener does not authenticate by SASL, which security.protocol asks for";
        } else if self.code == RDKafkaErrorCode::ClusterAuthorizationFailed {
            self.reason += ": this user needs an ACL that allows Write on the topics";
        }
        self
    }

    /// The broker whose certificate is refused, as librdkafka names it: `ssl://host:port/id`.
    pub(crate) fn refused_broker(&self) -> Option<&str> {
        let refused = self.code == RDKafkaErrorCode::SSL
            && self.reason.contains(REFUSED)
            && !is_alert(&self.reason);
        let (broker, _) = self.reason.split_once(": ").filter(|_| refused)?;
        Some(broker)
    }
}

/// Whether an error of the transport is the broker's refusal of our handshake.
pub(crate) fn is_alert(reason: &str) -> bool {
    reason.contains(ALERT)
}

/// Whether an error says that there is no such topic.
pub(crate) fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

/// A broker's error about a topic, with what it means for whoever runs the bridge.
pub(crate) fn said(code: RDKafkaErrorCode) -> String {
    let meaning = match code {
        code if is_missing(code) => "it is missing",
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "not authorised: it may be there, and this user needs an ACL that allows Write on it"
        }
        RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "not authorised: this user needs an ACL that allows Write on the topics"
        }
        RDKafkaErrorCode::InvalidTopic => {
            "its name is refused: it collides with another topic's where the two differ in `.` and `_` alone"
        }
        RDKafkaErrorCode::InvalidReplicationFactor => {
            "the cluster has fewer brokers than replication_factor asks for"
        }
        _ => return code.to_string(),
    };
    format!("{code}: {meaning}")
}
