//! What a damaged journal gives back.
