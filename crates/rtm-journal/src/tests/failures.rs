//! A disk that fails, and then does not.
