use rdkafka::error::RDKafkaErrorCode as Code;
use rtm_sink::PublishErrorKind;

/// What a failure of one record means for it and for its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A record of its batch is refused: itself, if it was alone. The code is fit for a metric label.
    Refused(&'static str),
    /// The record failed because of another record or of the producer. It is published again at once, without a word to
    /// the caller.
    Again,
    /// The call ends with this kind, and the record's outcome unknown.
    Ends(PublishErrorKind),
}

/// The kind of the error that a call ends with for this code; `otherwise` for a code that ends no call by itself.
pub(crate) fn kind(code: Code, otherwise: PublishErrorKind) -> PublishErrorKind {
    match verdict(code) {
        Verdict::Ends(kind) => kind,
        Verdict::Refused(_) | Verdict::Again => otherwise,
    }
}

/// Sorts librdkafka's codes. Whatever is not known ends the call as unavailable: it is tried again, after a backoff.
pub(crate) fn verdict(code: Code) -> Verdict {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Verdict::Refused("too_large")
        }
        Code::InvalidTimestamp => Verdict::Refused("timestamp"),
        Code::InvalidMessage | Code::InvalidRecord => Verdict::Refused("invalid"),
        Code::PolicyViolation => Verdict::Refused("policy"),

        // What a record fails with for another record's failure or success, or for the producer's failure.
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::InvalidDifferentRecord
        | Code::NoOffset
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping => Verdict::Again,

        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::SSL
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::InvalidRequiredAcks
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig => Verdict::Ends(PublishErrorKind::Misconfigured),

        _ => Verdict::Ends(PublishErrorKind::Unavailable),
    }
}
