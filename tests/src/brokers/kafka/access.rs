//! What a user may do: Kafka's ACLs, by two requests of its protocol that librdkafka's safe API does not have.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Kafka, PATIENCE};

/// What may be done, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Read what is there; it includes [`Describe`](Operation::Describe).
    Read = 3,
    /// Publish; it includes [`Describe`](Operation::Describe).
    Write = 4,
    /// Make a topic.
    Create = 5,
    /// See that a topic is there.
    Describe = 8,
    /// See how a topic is set.
    DescribeConfigs = 10,
}

/// That a user may do something with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right<'a> {
    /// The user's name, without `User:`.
    pub user: &'a str,
    /// The topic's whole name.
    pub topic: &'a str,
    /// What may be done.
    pub operation: Operation,
}

impl Kafka {
    /// Gives a right, on a broker with an authorizer.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or refuses.
    pub async fn grant(&self, right: Right<'_>) -> Result<()> {
        self.acl(CREATE_ACLS, right, TOPIC, LITERAL).await
    }

    /// Lets a user have transactions whose ids begin with `prefix`.
    ///
    /// # Errors
    ///
    /// As [`Kafka::grant`].
    pub async fn grant_transactions(&self, user: &str, prefix: &str) -> Result<()> {
        let right = Right {
            user,
            topic: prefix,
            operation: Operation::Write,
        };
        self.acl(CREATE_ACLS, right, TRANSACTIONAL_ID, PREFIXED)
            .await
    }

    /// Takes a right away.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or refuses.
    pub async fn revoke(&self, right: Right<'_>) -> Result<()> {
        self.acl(DELETE_ACLS, right, TOPIC, LITERAL).await
    }

    /// `CreateAcls` names an ACL, and `DeleteAcls` a filter, in the same bytes; their answers begin alike.
    async fn acl(&self, request: i16, right: Right<'_>, of: u8, pattern: u8) -> Result<()> {
        const VERSION: i16 = 1;
        const ALLOW: u8 = 3;
        let mut bytes = [request.to_be_bytes(), VERSION.to_be_bytes()].concat();
        bytes.extend(7_i32.to_be_bytes());
        put(&mut bytes, "rtm-tests")?;
        bytes.extend(1_i32.to_be_bytes());
        bytes.push(of);
        put(&mut bytes, right.topic)?;
        bytes.push(pattern);
        put(&mut bytes, &format!("User:{}", right.user))?;
        put(&mut bytes, "*")?;
        bytes.extend([right.operation as u8, ALLOW]);

        let answer = timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_i32(i32::try_from(bytes.len())?).await?;
            stream.write_all(&bytes).await?;
            let mut answer = vec![0; usize::try_from(stream.read_i32().await?)?];
            stream.read_exact(&mut answer).await?;
            anyhow::Ok(answer)
        });
        let answer = answer.await.context("no answer")??;
        // The correlation id, the throttle time, the number of results, and the first one's error.
        let error = answer.get(12..14).context("a short answer")?;
        ensure!(error == [0, 0], "{right:?} is refused: {answer:?}");
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.extend(i16::try_from(text.len())?.to_be_bytes());
    bytes.extend(text.as_bytes());
    Ok(())
}

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;

/// Kinds of what rights are on, and how they are named, by Kafka's numbers.
const TOPIC: u8 = 2;
const TRANSACTIONAL_ID: u8 = 5;
const LITERAL: u8 = 3;
const PREFIXED: u8 = 4;
