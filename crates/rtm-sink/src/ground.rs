//! What a broker has of what it had acknowledged: a power failure, or a copy of its files that is put back, takes some of it.

/// How far a broker's store reaches, as its sink has seen. Records have numbers there that grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ground {
    /// Which store it is: one that is made anew has another number. 0 while nobody knows.
    pub store: u64,
    /// The number of the last record that the store had when the sink first saw it, or found last that it had gone back.
    pub kept: u64,
    /// The number of the last record that was seen there since, or acknowledged.
    pub last: u64,
    /// 0 before the store was seen, then 1, and one more each time that it was found to have gone back.
    pub back: u64,
}

impl Ground {
    /// Takes what the broker says of its store: which it is, and the number of its last record. `since` is the ground from
    /// before the broker was asked: what is acknowledged while it answers may be missing in what it says. Says whether the
    /// store has gone back.
    pub fn look(&mut self, since: Ground, store: u64, last: u64) -> bool {
        if self.back != since.back {
            // Seen by somebody else meanwhile.
            return false;
        }
        let is_other = since.store != 0 && since.store != store;
        let is_back = self.back != 0 && (is_other || last < since.last);
        self.store = store;
        if is_back || self.back == 0 {
            self.back += 1;
            self.kept = last;
            self.last = last;
        } else {
            self.last = self.last.max(last);
        }
        is_back
    }

    /// The broker does not tell of its store.
    pub fn is_untold(&mut self) {
        self.back = self.back.max(1);
    }

    /// Takes the numbers, first and last, of records that were newly stored by a call that began when the ground was
    /// `since`. Says whether the store has gone back: numbers that are not above all that were acknowledged before the call
    /// were given before.
    pub fn acknowledge(&mut self, since: Ground, first: u64, last: u64) -> bool {
        if self.back != since.back {
            return false;
        }
        let is_back = self.back != 0 && first <= since.last;
        if is_back {
            *self = Ground {
                // It may be another one: the next look tells.
                store: 0,
                kept: first.saturating_sub(1),
                last,
                back: self.back + 1,
            };
        } else {
            self.last = self.last.max(last);
        }
        is_back
    }
}

#[cfg(test)]
mod tests;
