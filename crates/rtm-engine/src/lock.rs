use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that outlives the panic of a thread that held it: every holder leaves the value whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
