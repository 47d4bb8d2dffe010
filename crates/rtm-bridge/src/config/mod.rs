//! The configuration: TOML, environment over files, unknown keys refused, every problem with its file and key.

mod app;
mod changes;
mod environment;
mod files;
mod load;
mod log;
mod origin;
mod problem;
mod schema;
mod tables;
mod validate;

pub use app::{AgoraTokenConfig, AppConfig, AuthConfig, BasicConfig, CopyPolicy, TokenConfig};
pub(crate) use files::files;
pub(crate) use load::Examined;
pub(crate) use log::directives;
pub use problem::{ConfigError, Problem};
pub use schema::schema;
pub use tables::{
    AdminConfig, AdminTls, Config, Detail, JournalConfig, LogConfig, LogFormat, MetricsConfig,
};
pub(crate) use validate::free_bytes;
