use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::task::spawn_blocking;

use crate::failure::said;
use crate::options::{ConnectError, TopicSpec};
use crate::producer::{Configure, Context};
use crate::settings::Admin;

/// How long the brokers may take to answer about topics.
const TIMEOUT: Duration = Duration::from_secs(10);

/// As the cluster's own settings say.
const CLUSTER_DEFAULT: TopicSpec = TopicSpec {
    partitions: -1,
    replication: -1,
};

/// Why the cluster or its topics could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No broker answered in time.
    #[error("reach the brokers: {}", said.clone().unwrap_or_else(|| error.to_string()))]
    Unreachable {
        /// What is wrong at the brokers' addresses, or the last thing that librdkafka said, without secrets: both know
        /// more than the error.
        said: Option<String>,
        /// The error.
        error: KafkaError,
    },
    /// A topic could not be created.
    #[error("create the topic `{name}`: {}", to_create(*code))]
    Create {
        /// The topic.
        name: String,
        /// What the brokers said.
        code: RDKafkaErrorCode,
    },
    /// No client could be made.
    #[error(transparent)]
    Start(#[from] ConnectError),
    /// The sink was closed.
    #[error("the sink is closed")]
    Closed,
}

/// Creates the topics that do not exist, with a client of its own.
pub(crate) async fn create(
    configure: impl Configure,
    names: Vec<String>,
    spec: TopicSpec,
) -> Result<(), CheckError> {
    let admin = Admin::start(configure).await?;
    match ask(&admin, &names, spec, false).await {
        Ok(created) => judge(&admin, created).await,
        Err(error) => Err(CheckError::Unreachable { said: None, error }),
    }
}

/// Why the brokers would not create a topic for this user, if they would not; the topic is not made.
pub(crate) async fn refused(
    admin: &AdminClient<Context>,
    name: &str,
    spec: Option<TopicSpec>,
) -> Option<RDKafkaErrorCode> {
    let names = [name.to_owned()];
    let asked = ask(admin, &names, spec.unwrap_or(CLUSTER_DEFAULT), true).await;
    let asked = asked.ok()?.into_iter().next()?;
    asked.err().map(|(_, code)| code)
}

type Created = Vec<Result<String, (String, RDKafkaErrorCode)>>;

async fn ask(
    admin: &AdminClient<Context>,
    names: &[String],
    spec: TopicSpec,
    validate_only: bool,
) -> Result<Created, KafkaError> {
    let replication = || TopicReplication::Fixed(spec.replication);
    let topics = names.iter();
    let topics: Vec<NewTopic<'_>> = topics
        .map(|name| NewTopic::new(name, spec.partitions, replication()))
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(TIMEOUT))
        .request_timeout(Some(TIMEOUT))
        .validate_only(validate_only);
    admin.create_topics(&topics, &options).await
}

/// Whether every topic is there now. Who may not create a topic is told just that, also where the topic is there.
async fn judge(admin: &Arc<AdminClient<Context>>, created: Created) -> Result<(), CheckError> {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, TopicAlreadyExists, TopicAuthorizationFailed,
    };
    for result in created {
        match result {
            Ok(_) | Err((_, TopicAlreadyExists)) => (),
            Err((name, code)) => {
                let may_be_there =
                    matches!(code, TopicAuthorizationFailed | ClusterAuthorizationFailed);
                if !may_be_there || !is_there(admin, &name).await {
                    return Err(CheckError::Create { name, code });
                }
            }
        }
    }
    Ok(())
}

/// Whether the topic is there and shown to this user.
async fn is_there(admin: &Arc<AdminClient<Context>>, name: &str) -> bool {
    let (admin, name) = (Arc::clone(admin), name.to_owned());
    let ask = move || admin.inner().fetch_metadata(Some(&name), TIMEOUT);
    let metadata = spawn_blocking(ask).await;
    let metadata = metadata.unwrap_or(Err(KafkaError::Canceled));
    metadata.is_ok_and(|metadata| {
        let mut topics = metadata.topics().iter();
        topics.any(|topic| topic.error().is_none() && !topic.partitions().is_empty())
    })
}

/// Why a topic cannot be created.
pub(crate) fn to_create(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            format!("{code}: not authorised: this user needs an ACL that allows Create")
        }
        RDKafkaErrorCode::TopicAlreadyExists => {
            format!("{code}: it is there, and this user needs an ACL that allows Write on it")
        }
        _ => said(code),
    }
}
