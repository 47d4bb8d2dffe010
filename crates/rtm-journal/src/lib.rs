//! rtm-journal
