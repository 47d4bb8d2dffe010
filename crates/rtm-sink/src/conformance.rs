//! The suite that every sink runs.
