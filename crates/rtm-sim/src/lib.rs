//! rtm-sim
