//! The parts of a bridge that runs on simulated time, with a network of its own.

pub mod source;
