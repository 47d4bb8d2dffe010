//! rtm-source
