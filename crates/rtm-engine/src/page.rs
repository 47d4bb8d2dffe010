//! How large a page can be.

use rtm_record::entry;

/// Room in the journal that a page may need: the source cuts bodies at [`MAX_PAGE_BYTES`].
pub const ROOM_FOR_A_PAGE: usize = MAX_PAGE_BYTES + entry::OVERHEAD;

/// Where the source cuts a body, 2 MiB. A legal page with every id escaped is under 1 MiB.
pub const MAX_PAGE_BYTES: usize = 2 << 20;
