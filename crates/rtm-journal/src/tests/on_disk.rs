//! On the real file system: lock, permissions, inspection.
