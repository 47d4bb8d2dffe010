//! rtm-bridge
fn main() {}
