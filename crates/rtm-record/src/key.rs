//! What records are keyed by, and the key that copies of an event share.

use rtm_source::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::entry::Tags;

/// What a Kafka record is keyed by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyBy {
    /// The user for user events, the channel for channel events.
    #[default]
    Auto,
    /// The user.
    UserId,
    /// The channel; the user for user events, which have none.
    ChannelId,
    /// Nothing: no order.
    None,
}

impl KeyBy {
    /// What the record of an event is keyed by, if by anything.
    pub(crate) fn of<'e>(self, event: &'e Event<'_>, tags: &Tags<'_>) -> Option<&'e str> {
        let channel = event.channel_id.as_deref();
        match self {
            KeyBy::None => None,
            KeyBy::UserId => Some(&event.user_id),
            KeyBy::Auto if tags.stream == "user" => Some(&event.user_id),
            KeyBy::Auto | KeyBy::ChannelId => channel.or(Some(&event.user_id)),
        }
    }
}

/// The first 128 bits of the hash that is equal for copies of one event that were read from two regions.
pub type EventKey = [u8; 16];

/// What event keys are hashed from, of the events of one page.
pub struct KeyHash {
    /// The page's part, and after it the last event's: in one piece, not in a dozen morsels.
    text: Vec<u8>,
    /// How long the page's part is.
    of_page: usize,
}

impl KeyHash {
    /// For the events of a page with these tags.
    pub fn new(tags: &Tags<'_>) -> KeyHash {
        let mut text = Vec::with_capacity(256);
        put_field(&mut text, &tags.app_id);
        put_field(&mut text, &tags.stream);
        let of_page = text.len();
        KeyHash { text, of_page }
    }

    /// Equal for copies of one event that were read from two regions: the first 128 bits of SHA-256 over what the event
    /// says, in base 16. Each of App ID, stream, user, channel (empty for user events), type and `ms` in decimal (empty
    /// when there is none) is preceded by its length in bytes as four bytes, big endian.
    pub fn key(&mut self, event: &Event<'_>) -> EventKey {
        let mut digits = itoa::Buffer::new();
        let ms = event.ms.map_or("", |ms| digits.format(ms));
        let channel = event.channel_id.as_deref().unwrap_or_default();
        self.text.truncate(self.of_page);
        for field in [&*event.user_id, channel, &*event.kind, ms] {
            put_field(&mut self.text, field);
        }
        let mut key = EventKey::default();
        key.copy_from_slice(&Sha256::digest(&self.text)[..16]);
        key
    }
}

fn put_field(text: &mut Vec<u8>, field: &str) {
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    text.extend_from_slice(&length.to_be_bytes());
    text.extend_from_slice(field.as_bytes());
}

/// A key in base 16, as documents and headers show it.
pub(crate) fn hex_key(key: &EventKey) -> [u8; 32] {
    let mut text = [0; 32];
    // Fails only where the text is not twice as long as the key.
    let _ = hex::encode_to_slice(key, &mut text);
    text
}
