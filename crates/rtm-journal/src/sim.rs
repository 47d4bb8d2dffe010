//! A simulated disk: what is not synced may be lost, in any part and any order, and every call can be made to fail.
//!
//! For tests and simulations; behind the cargo feature `sim`. It stores sectors of 512 bytes, each written whole or not
//! at all, or torn where the loss is [random](SimDisk::after_random_power_loss). File contents, file lengths and the
//! directory's names each survive on their own: a name may be there without its contents, a removed file may be back, a
//! truncated one as long as it was.
//!
//! It also watches the journal's own rules, and panics where they are broken: a segment whose write or sync has failed
//! is neither written nor synced again, and segments are appended to only by who created them.

mod anything;
mod disk;

pub use anything::open_anything;
pub use disk::{Op, READ_ERRORS, SimDisk};
