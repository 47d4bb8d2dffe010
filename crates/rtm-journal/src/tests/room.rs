//! Who may have how much, and what frees it.
